"""Plan in, Kubernetes manifests for a serving engine out. Pure."""
