"""The candidates of one deployment: their space, predictions, constraints and order."""
