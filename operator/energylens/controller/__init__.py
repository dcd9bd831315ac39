"""The only importer of kopf: watches, wires observe, decide and apply, writes status and events."""
