"""Model, hardware, layout and load in, latency, power and energy out. NumPy only: no I/O, no clock."""
