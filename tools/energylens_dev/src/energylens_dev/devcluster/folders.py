"""Where this user's files go, by the XDG base directory specification."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from energylens_dev.devcluster.errors import DevClusterError


def user_folder(environ: Mapping[str, str], variable: str, below_home: str) -> Path:
    """Return the folder that an XDG variable names, else one below the home directory.

    Args:
        environ: Environment variables.
        variable: Such as ``XDG_CACHE_HOME``; the specification says to ignore a relative path in it.
        below_home: Such as ``.cache``.

    Raises:
        DevClusterError: there is no home directory, as for a user whose number has no entry in /etc/passwd.
    """
    base = environ.get(variable, "")
    if base.startswith("/"):
        return Path(base)
    try:
        return Path(environ.get("HOME") or Path.home()) / below_home
    except RuntimeError as error:
        raise DevClusterError(f"this user has no home directory: set HOME or {variable}") from error
