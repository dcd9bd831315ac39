"""How far predictions are from measured runs, and what their errors cost when plans are chosen by them."""
