"""Fitting the predictor to measured runs: what ``energylens calibrate`` runs, and nothing that predicts."""
