"""Free TCP ports on loopback."""

from __future__ import annotations

import os
import random
import re
import socket
from collections.abc import Collection, Mapping

from energylens_dev.devcluster.errors import DevClusterError

LOOPBACK = "127.0.0.1"

# Below the range from which the system takes the local ports of outgoing connections (32768 up on Linux), so that a
# port whose server is stopped for a moment is not taken by somebody's client.
_RANGE = range(20000, 30000)
_ATTEMPTS = 200
VARIABLE = "ENERGYLENS_DEV_PORTS"
"""Environment variable with another range, such as ``20000-24999``, for clusters that start at the same time."""


def port_range(environ: Mapping[str, str]) -> range:
    """Return the ports that may be chosen.

    Args:
        environ: Environment variables; ``ENERGYLENS_DEV_PORTS`` replaces the default, 20000 to 29999.

    Raises:
        DevClusterError: When the variable is no range of at least 100 ports from 1024 to 65535.
    """
    text = environ.get(VARIABLE)
    if text is None:
        return _RANGE
    found = re.fullmatch(r"(\d{4,5})-(\d{4,5})", text)
    first, last = (int(found[1]), int(found[2])) if found else (0, 0)
    if first < 1024 or last > 65535 or last < first + 99:
        raise DevClusterError(
            f"{VARIABLE}={text!r} must be two ports from 1024 to 65535 at least 99 apart, such as 20000-24999"
        )
    return range(first, last + 1)


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

    Two that start at the same moment may still do: give each a range of its own, see :func:`port_range`.

    Args:
        taken: Ports to leave out.

    Raises:
        DevClusterError: When none is found, or ``ENERGYLENS_DEV_PORTS`` is not a range.
    """
    ports = port_range(os.environ)
    for _ in range(_ATTEMPTS):
        port = random.choice(ports)
        if port not in taken and is_free(port):
            return port
    raise DevClusterError(f"no free port on {LOOPBACK} from {ports.start} to {ports.stop - 1}")
