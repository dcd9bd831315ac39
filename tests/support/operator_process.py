"""A process of the operator on this machine: how it is asked how it is, and how it is ended."""

from __future__ import annotations

import signal
import subprocess
import urllib.error
import urllib.request

from energylens_dev.devcluster.operators import metrics_url

END_SECONDS = 30.0


def probe(port: int, name: str) -> str:
    """Return what a probe says, such as ``200 ok``; "" while nothing answers."""
    url = metrics_url(port).replace("/metrics", f"/{name}")
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return f"{answer.status} {answer.read().decode().strip()}"
    except urllib.error.HTTPError as error:
        with error:
            return f"{error.code} {error.read().decode().strip()}"
    except OSError:
        return ""


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process politely, whatever state it is in, and by force where that is not enough."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(END_SECONDS)
