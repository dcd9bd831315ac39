"""What the operator serves over HTTP: metrics and probes."""
