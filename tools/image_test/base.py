"""The base image that the Dockerfile asks for: the official one where a registry answers, else a stand-in."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tools.image_test.programs import DEBOOTSTRAP, Buildah, ImageTestError, check, run

RELEASE, MIRROR = "trixie", "http://deb.debian.org/debian"
"""Debian 13, whose Python is 3.13 as that of the image which the Dockerfile names."""
PACKAGES = ("python3", "python3-venv", "python3-pip", "ca-certificates")
_PULL_SECONDS = 120.0
_BOOTSTRAP_SECONDS = 1800.0

Say = Callable[[str], None]


def named_base(dockerfile: Path) -> str:
    """Return the image that the Dockerfile builds on, by the default of its argument.

    Raises:
        ImageTestError: it names none.
    """
    found = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", dockerfile.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise ImageTestError(f"{dockerfile}: no line ARG PYTHON_IMAGE=...")
    return found[1]


def ensure_base(buildah: Buildah, image: str, cache: Path, say: Say) -> str:
    """Have ``image`` in the storage; return what it is.

    Args:
        buildah: Where the image has to be.
        image: As the Dockerfile names it, such as ``python:3.13-slim``.
        cache: Folder that keeps the stand-in's files for the next time.
        say: Told of each step.

    Raises:
        ImageTestError: neither is available.
    """
    full = f"docker.io/library/{image}"
    try:
        buildah.run("pull", "--quiet", full, seconds=_PULL_SECONDS)
    except ImageTestError as error:
        say(f"{image} cannot be pulled ({str(error).splitlines()[-1].strip()})")
    else:
        return f"{image}, pulled"
    rootfs = cache / f"{RELEASE}-python"
    if not (rootfs / "usr/bin/python3").exists():
        check((DEBOOTSTRAP,))
        say(f"making a stand-in with debootstrap: Debian {RELEASE} with {', '.join(PACKAGES)}")
        partial = rootfs.with_suffix(".partial")
        run("rm", "-rf", partial)
        cache.mkdir(parents=True, exist_ok=True)
        wanted = f"--include={','.join(PACKAGES)}"
        run(DEBOOTSTRAP, "--variant=minbase", wanted, RELEASE, partial, MIRROR, seconds=_BOOTSTRAP_SECONDS)
        partial.rename(rootfs)
    container = buildah.run("from", "scratch")
    buildah.run("copy", "--quiet", container, str(rootfs), "/")
    mounted = Path(buildah.run("mount", container))
    # As the official image has them.
    for name in ("python", "python3"):
        (mounted / "usr/local/bin" / name).symlink_to("/usr/bin/python3")
    buildah.run("config", "--env", "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", container)
    buildah.run("commit", "--quiet", "--rm", container, full)
    return f"{image}, a stand-in: Debian {RELEASE} with its own Python"
