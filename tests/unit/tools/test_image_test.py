"""What `make image-test` tells crun and its users; building and running is shown by the command itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tools.image_test import programs
from tools.image_test.base import named_base
from tools.image_test.bundle import SERVICE_ACCOUNT, bundle
from tools.image_test.programs import ImageTestError, check, run

ROOT = Path(__file__).resolve().parents[3]
IMAGE = {"Env": ["PATH=/opt/energylens/bin", "HOME=/tmp"], "Entrypoint": ["energylens"], "WorkingDir": "/tmp"}
POD: dict[str, Any] = {
    "securityContext": {"runAsUser": 65532, "runAsGroup": 65532},
    "containers": [
        {
            "args": ["operator", "--metrics-port=8080", "--config=/etc/energylens/config.yaml"],
            "env": [
                {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "PLAIN", "value": "a"},
            ],
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
        }
    ],
}


def made(pod: dict[str, Any] = POD) -> dict[str, Any]:
    return bundle(
        IMAGE, pod, Path("/mounted"), metrics_port=9, fields={"metadata.name": "operator-0"},
        environment={"KUBERNETES_SERVICE_HOST": "::1"}, folders={SERVICE_ACCOUNT: Path("/token")},
    )  # fmt: skip


def test_the_container_is_the_charts_on_a_port_of_this_machine() -> None:
    process = made()["process"]
    assert process["args"] == ["energylens", "operator", "--metrics-port=9", "--config=/etc/energylens/config.yaml"]
    assert process["env"] == [
        "PATH=/opt/energylens/bin", "HOME=/tmp", "POD_NAME=operator-0", "PLAIN=a", "KUBERNETES_SERVICE_HOST=::1",
    ]  # fmt: skip
    assert process["user"] == {"uid": 65532, "gid": 65532}


def test_rights_are_those_of_the_pod() -> None:
    spec = made()
    assert spec["root"] == {"path": "/mounted", "readonly": True}
    assert set(map(tuple, spec["process"]["capabilities"].values())) == {()}
    assert spec["process"]["noNewPrivileges"] is True
    assert "network" not in {namespace["type"] for namespace in spec["linux"]["namespaces"]}
    loose = made({**POD, "containers": [{**POD["containers"][0], "securityContext": {}}]})
    assert loose["root"]["readonly"] is False
    assert loose["process"]["capabilities"]["effective"]


def test_only_tmp_can_be_written() -> None:
    mounts = {mount["destination"]: mount for mount in made()["mounts"]}
    assert mounts[SERVICE_ACCOUNT]["source"] == "/token"
    assert mounts[SERVICE_ACCOUNT]["options"] == ["bind", "ro"]
    assert {path for path, mount in mounts.items() if mount["type"] == "tmpfs"} == {"/tmp", "/dev"}


def test_the_base_is_the_one_that_the_dockerfile_names(tmp_path: Path) -> None:
    assert named_base(ROOT / "Dockerfile").startswith("python:3.")
    path = tmp_path / "Dockerfile"
    path.write_text("FROM scratch\n")
    with pytest.raises(ImageTestError, match="PYTHON_IMAGE"):
        named_base(path)


def test_a_program_that_is_missing_is_named_with_how_to_get_it() -> None:
    with pytest.raises(ImageTestError, match=r"no-such-a no-such-b: not found .* apt-get install no-such-a no-such-b"):
        check(("sh", "no-such-a", "no-such-b"))


def test_it_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs.os, "geteuid", lambda: 1000)  # type: ignore[attr-defined]
    with pytest.raises(ImageTestError, match="root"):
        check(("sh",))


def test_a_program_that_fails_or_hangs_is_an_error_with_its_words() -> None:
    with pytest.raises(ImageTestError, match=r"ended with code 3:\nwhy"):
        run("sh", "-c", "echo why >&2; exit 3")
    with pytest.raises(ImageTestError, match="took longer than"):
        run("sleep", "5", seconds=0.01)
