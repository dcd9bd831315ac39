"""Planning many deployments together within shared watts and GPUs."""
