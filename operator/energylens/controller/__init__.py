"""The only package that imports kopf: it watches, runs passes, and writes status and events."""
