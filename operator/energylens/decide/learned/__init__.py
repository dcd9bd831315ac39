"""What measurement taught about predictions: the comparison of both, and the factors learned from it."""
