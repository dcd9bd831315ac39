"""The programs that build and run the image, and what they say when they fail."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from energylens_dev.devcluster.interrupts import deferred

BUILDAH, CRUN, DEBOOTSTRAP = "buildah", "crun", "debootstrap"
_TAIL_LINES = 15
_UNIFIED = Path("/sys/fs/cgroup/unified")


class ImageTestError(Exception):
    """The test failed, or cannot be made here; the message says why."""


def check(needed: Sequence[str]) -> None:
    """Check that the programs are there, and that this is root.

    Raises:
        ImageTestError: naming what is missing and how to get it.
    """
    missing = [name for name in needed if shutil.which(name) is None]
    if missing:
        names = " ".join(missing)
        raise ImageTestError(f"{names}: not found on PATH; on Debian and Ubuntu: apt-get install {names}")
    if os.geteuid() != 0:
        raise ImageTestError("chroot isolation and crun without user namespaces need root")


def run(*command: str | Path, seconds: float = 600, cwd: Path | None = None) -> str:
    """Run a program and return what it wrote to stdout.

    Raises:
        ImageTestError: with the end of what it said, when it fails or takes too long.
    """
    words = [str(part) for part in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=seconds, cwd=cwd)
    except subprocess.TimeoutExpired as error:
        raise ImageTestError(f"`{' '.join(words[:3])} ...` took longer than {seconds:.0f} s") from error
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-_TAIL_LINES:])
        raise ImageTestError(f"`{' '.join(words)}` ended with code {done.returncode}:\n{said}")
    return done.stdout


class Buildah:
    """buildah with a storage of its own, so that the images of this machine are left alone."""

    def __init__(self, storage: Path) -> None:
        """Keep images under ``storage``."""
        self._storage = storage
        self._command = (
            BUILDAH, "--storage-driver", "vfs", "--root", str(storage / "root"), "--runroot", str(storage / "run"),
        )  # fmt: skip

    def run(self, *arguments: str | Path, seconds: float = 600, cwd: Path | None = None) -> str:
        """Run one of its commands; see :func:`run`."""
        return run(*self._command, *arguments, seconds=seconds, cwd=cwd).strip()

    def remove(self) -> None:
        """Remove every container and image, also after a failure."""
        with deferred():
            subprocess.run([*self._command, "rm", "--all"], capture_output=True, check=False)
            shutil.rmtree(self._storage, ignore_errors=True)


class Crun:
    """crun with a state directory of its own, and without control groups: nothing is limited here."""

    def __init__(self, state: Path) -> None:
        """Keep what runs under ``state``."""
        self._state = state

    def command(self, *arguments: str) -> list[str]:
        """Return a command line.

        crun refuses machines with control groups of both versions, even where it is told to use none: on those it gets
        a mount namespace in which the second version is not there.
        """
        command = [CRUN, "--root", str(self._state), "--cgroup-manager=disabled", *arguments]
        if not _UNIFIED.is_mount():
            return command
        return ["unshare", "--mount", "sh", "-c", f'umount {_UNIFIED} && exec "$@"', "sh", *command]

    def run(self, *arguments: str) -> str:
        """Run one of its commands; see :func:`run`."""
        return run(*self.command(*arguments), seconds=60)

    def remove(self, container: str) -> None:
        """End a container and forget it; nothing where there is none."""
        subprocess.run(self.command("delete", "--force", container), capture_output=True, check=False)
