"""Many deployments planned together within shared watts and GPUs."""
