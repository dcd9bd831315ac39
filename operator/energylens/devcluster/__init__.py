"""A real Kubernetes control plane on this machine, built from Go modules and run on loopback."""
