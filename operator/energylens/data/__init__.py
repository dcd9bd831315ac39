"""GPU specifications, calibrated coefficients and the model catalogue, each with its provenance."""
