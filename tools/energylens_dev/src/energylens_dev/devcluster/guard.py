"""Removes a cluster whose owner has ended, however that was: also by a Ctrl-C at pytest-xdist, or by SIGKILL.

The processes of a cluster run in sessions of their own and outlive `up` on purpose. A test or a benchmark that ends
without its clean-up would leave them running. So a small process beside it waits for the end of a pipe, which the
kernel closes with its owner.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from energylens_dev.devcluster.errors import DevClusterError

# Nothing else is imported while it waits: it costs a few megabytes and no processor time.
_WAIT = """
import sys
sys.stdin.buffer.read()
from pathlib import Path
from energylens_dev.devcluster import down
down(Path(sys.argv[1]), purge=True)
"""


@contextlib.contextmanager
def guarded(directory: Path) -> Iterator[None]:
    """Remove the cluster of a state directory when this process ends in the block, and at the end of the block.

    Args:
        directory: Need not exist yet.

    Raises:
        DevClusterError: At the end of the block, when the cluster was not removed.
    """
    command = [sys.executable, "-c", _WAIT, str(directory.absolute())]
    # In a session of its own, so that a Ctrl-C at the terminal does not reach it. Other children do not get the pipe.
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as guard:
        yield
    if guard.returncode:
        raise DevClusterError(f"the cluster in {directory} was not removed (exit code {guard.returncode})")
