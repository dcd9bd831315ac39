"""Results of measurement about predictions: their comparison, and the learned factors."""
