"""What is reported: status, conditions and events."""
