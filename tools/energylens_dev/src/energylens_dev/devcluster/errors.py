"""The one error of the development cluster: its message is meant for the person at the terminal."""

from __future__ import annotations


class DevClusterError(Exception):
    """Something the user can act on; the message says what failed and what to do."""
