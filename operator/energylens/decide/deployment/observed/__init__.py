"""What a reconcile knows of a deployment: its pods and workloads, the ConfigMaps that its spec names, its model."""
