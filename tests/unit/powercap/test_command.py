"""`energylens power-caps`: what it says when it cannot work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from click.testing import CliRunner
from tests.unit.powercap.fake_nvml import Device, FakeNvml

from energylens.cli.commands import power_caps as command
from energylens.cli.commands.power_caps import caps_of
from energylens.cli.main import cli
from energylens.cluster.errors import TransientError
from energylens.powercap.devices import Devices

CAP = "dynamo.nvidia.com/gpu-power-limit"


class Pods:
    """An API server that knows pods only."""

    def __init__(self, *pods: dict[str, Any]) -> None:
        self.pods = pods
        self.asked: list[str] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def list_objects(self, resource: object, *, label_selector: str, field_selector: str) -> Iterator[Any]:
        self.asked.append(f"{label_selector} {field_selector}")
        return iter(self.pods)


def pod(uid: str, cap: str | None, phase: str = "Running") -> dict[str, Any]:
    annotations = {} if cap is None else {CAP: cap}
    return {"metadata": {"uid": uid, "annotations": annotations}, "status": {"phase": phase}}


async def test_caps_are_those_of_running_pods_of_the_operator_on_this_node() -> None:
    server = Pods(pod("a", "400"), pod("b", None), pod("c", "300", "Failed"))
    assert await caps_of(server, "n1") == {"a": "400"}  # type: ignore[arg-type]
    assert server.asked == ["app.kubernetes.io/managed-by=energylens spec.nodeName=n1"]


async def test_a_server_that_does_not_answer_changes_nothing() -> None:
    class Silent(Pods):
        async def list_objects(self, resource: object, **_: str) -> Iterator[Any]:
            raise TransientError("time-out")

    assert await caps_of(Silent(), "n1") is None  # type: ignore[arg-type]


def test_a_kubeconfig_that_is_none_is_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("[]")
    result = CliRunner().invoke(cli, ["power-caps", "--node", "n1", "--kubeconfig", str(path)])
    assert result.exit_code == 2
    assert result.output.splitlines()[-1].startswith("Error: --kubeconfig=")


def test_without_a_driver_it_ends_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def connected(kubeconfig: Path | None) -> Pods:
        return Pods()

    monkeypatch.setattr(command, "connect", connected)
    monkeypatch.setattr(
        command, "Devices", lambda pod_of: Devices(pod_of, library=FakeNvml([Device("a")], driver=False))
    )
    result = CliRunner().invoke(cli, ["power-caps", "--node", "n1", "--record", str(tmp_path / "caps.json")])
    assert result.exit_code == 1
    assert "is the NVIDIA driver mounted here?" in result.output.splitlines()[-1]
