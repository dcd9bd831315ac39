"""`make image`: build the operator's image so that one commit gives one image, byte for byte.

Files carry the time of the commit, dependencies come from the lock with hashes, and labels name version, revision and
source. With a base image pinned by digest (``--base``), two builds of a commit on one architecture give the same image.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from energylens import __version__

ROOT = Path(__file__).resolve().parents[1]
ENGINES = ("docker", "podman", "buildah")


@dataclass(frozen=True)
class Origin:
    """What an image is built from: the commit, its time in seconds since 1970, and the address of the repository."""

    revision: str
    epoch: int
    source: str = ""


def origin(root: Path = ROOT) -> Origin:
    """Return the origin of a build from the checkout at ``root``; the address of its remote ``origin`` is the source.

    Raises:
        subprocess.CalledProcessError: ``root`` is no checkout of git.
    """
    revision, epoch = _git(root, "log", "-1", "--format=%H %ct").split()
    dirty = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    remote = urlsplit(_git(root, "config", "--default", "", "--get", "remote.origin.url"))
    # A label is public: without the user and password of the address, and without folders of this machine.
    source = remote._replace(netloc=remote.netloc.rpartition("@")[2]).geturl() if remote.netloc else ""
    return Origin(f"{revision}-dirty" if dirty else revision, int(epoch), source)


def build_arguments(engine: str, tag: str, built_from: Origin, base: str = "") -> list[str]:
    """Return the arguments that make ``engine`` build the Dockerfile of the current folder, the name of it apart.

    Args:
        engine: ``docker`` (with buildx), ``podman`` or ``buildah``.
        tag: Name of the image.
        built_from: Origin, for the labels and the time of every file.
        base: Base image instead of the Dockerfile's.
    """
    facts = {"VERSION": __version__, "REVISION": built_from.revision, "SOURCE": built_from.source}
    if base:
        facts["PYTHON_IMAGE"] = base
    labels = [f"--build-arg={name}={value}" for name, value in facts.items() if value]
    if engine == "docker":
        # BuildKit takes the time of the layers' files from this argument.
        times = [
            f"--build-arg=SOURCE_DATE_EPOCH={built_from.epoch}",
            f"--output=type=docker,name={tag},rewrite-timestamp=true",
        ]
        return ["buildx", "build", *labels, *times, "--provenance=false", "."]
    return ["build", *labels, f"--timestamp={built_from.epoch}", f"--tag={tag}", "."]


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the image; return the exit code of the engine, or 2 when there is none."""
    parser = argparse.ArgumentParser(
        prog="make image", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tag", default=f"energylens:{__version__}")
    parser.add_argument("--engine", choices=ENGINES, default=next(filter(shutil.which, ENGINES), None))
    parser.add_argument("--base", default="", metavar="IMAGE@sha256:...")
    options = parser.parse_args(arguments)
    if options.engine is None:
        parser.error(f"none of {', '.join(ENGINES)} is on PATH")
    built_from = origin()
    if built_from.revision.endswith("-dirty"):
        sys.stderr.write("The checkout has changes that are not committed: the image's revision ends in -dirty.\n")
    command = [options.engine, *build_arguments(options.engine, options.tag, built_from, options.base)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(built_from.epoch)}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
