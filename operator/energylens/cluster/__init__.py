"""The only importer of the Kubernetes client: snapshots in, server-side apply out."""
