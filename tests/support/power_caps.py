"""`energylens power-caps` as a process of its own, on GPUs that are in a file: it can be killed, and they outlive it.

Run as ``python -m tests.support.power_caps FILE ARGUMENTS...``. The file has ``limits``, milliwatts by UUID, and
``pods``, the UID of the pod that runs on a GPU by the GPU's UUID.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest import mock

from tests.unit.powercap.fake_nvml import Device, FakeNvml

from energylens.cli.commands import power_caps as command
from energylens.cli.main import cli
from energylens.powercap.devices import Devices


class NvmlOfFile(FakeNvml):
    """NVML whose GPUs are those of a file; a process id is the number of its GPU."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__()
        self.nvmlDeviceGetCount()

    def nvmlDeviceGetCount(self):  # noqa: N802
        state = json.loads(self.path.read_text())
        self.devices = [
            Device(uuid, limit=limit, pids=[number] if uuid in state["pods"] else [])
            for number, (uuid, limit) in enumerate(state["limits"].items())
        ]
        return len(self.devices)

    def nvmlDeviceSetPowerManagementLimit(self, handle, limit):  # noqa: N802
        super().nvmlDeviceSetPowerManagementLimit(handle, limit)
        state = json.loads(self.path.read_text())
        state["limits"][handle.uuid] = limit
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(state))
        new.replace(self.path)

    def pod_of(self, pid: int) -> str | None:
        state = json.loads(self.path.read_text())
        pod: str | None = state["pods"].get(self.devices[pid].uuid)
        return pod


def main(path: Path, arguments: list[str]) -> None:
    library = NvmlOfFile(path)
    with mock.patch.object(command, "Devices", return_value=Devices(library.pod_of, library=library)):
        cli(["power-caps", *arguments])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
