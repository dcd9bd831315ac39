"""One step of an engine on given GPUs: its work, latency and power."""
