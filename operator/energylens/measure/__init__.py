"""Energy and token counters in, joules per output token over a window out."""
