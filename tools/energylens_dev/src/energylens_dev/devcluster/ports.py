"""Free TCP ports on loopback."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection

from energylens_dev.devcluster.errors import DevClusterError

LOOPBACK = "127.0.0.1"

# Below the range from which the system takes the local ports of outgoing connections (32768 up on Linux), so that a
# port whose server is stopped for a moment is not taken by somebody's client.
_RANGE = range(20000, 30000)
_ATTEMPTS = 200


def is_free(port: int) -> bool:
    """Whether nothing listens on this port of 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Servers set this too: connections that were closed a moment ago do not block their port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port(taken: Collection[int] = ()) -> int:
    """Return a port that is free now, chosen at random so that two clusters rarely pick the same.

    Args:
        taken: Ports to leave out.

    Raises:
        DevClusterError: When none is found.
    """
    for _ in range(_ATTEMPTS):
        port = random.choice(_RANGE)
        if port not in taken and is_free(port):
            return port
    raise DevClusterError(f"no free port on {LOOPBACK} from {_RANGE.start} to {_RANGE.stop - 1}")
