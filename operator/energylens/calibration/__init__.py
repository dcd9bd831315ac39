"""Fitting the predictor to measured runs, for ``energylens calibrate``; prediction does not need this package."""
