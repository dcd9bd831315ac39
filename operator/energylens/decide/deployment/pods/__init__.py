"""The objects that should exist, and how running pods give way to others."""
