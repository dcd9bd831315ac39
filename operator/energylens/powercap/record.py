"""The GPUs whose limits the agent changed, in a file, so that they are restored after a crash of the agent."""

from __future__ import annotations

import json
import os
from pathlib import Path


class RecordError(Exception):
    """The file cannot be written or read; the message is one line."""


class Record:
    """UUIDs of the GPUs whose limits were changed.

    Their folder is emptied by a reboot, which also resets the limits.
    """

    def __init__(self, path: Path) -> None:
        """Keep the UUIDs in ``path``."""
        self._path = path

    def read(self) -> frozenset[str]:
        """Return the UUIDs; empty when there is no file.

        Raises:
            RecordError: the file exists and cannot be read.
        """
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            return frozenset(str(uuid) for uuid in found["gpus"])
        except FileNotFoundError:
            return frozenset()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecordError(f"{self._path}: {error}") from error

    def write(self, uuids: frozenset[str]) -> None:
        """Replace the UUIDs in one step: the file is written as a whole or not at all.

        Raises:
            RecordError: the file cannot be written.
        """
        new = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with new.open("w", encoding="utf-8") as file:
                json.dump({"gpus": sorted(uuids)}, file)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            raise RecordError(f"{self._path}: {error}") from error
