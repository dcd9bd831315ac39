"""Models that come from a mirror, a volume or an image: what the engine is told, and what its pod mounts."""

from __future__ import annotations

from typing import Any

import pytest

from energylens.api.llmdeployment import Model
from energylens.serving.weights import model_argument, served_name, source_environment, source_volumes

ID = "meta-llama/Llama-3.1-8B-Instruct"
CLAIM, IMAGE = {"claimName": "weights"}, {"reference": "registry.example.com/llama:1"}


def model(source: dict[str, Any] | None = None, **fields: Any) -> Model:
    return Model.model_validate({"name": ID, **fields} | ({} if source is None else {"source": source}))


@pytest.mark.parametrize(
    ("source", "argument"),
    [
        (None, ID),
        ({"hub": {}}, ID),
        ({"persistentVolumeClaim": CLAIM}, "/weights"),
        ({"persistentVolumeClaim": CLAIM | {"path": "llama/8b"}}, "/weights/llama/8b"),
        ({"image": IMAGE | {"path": "model"}}, "/weights/model"),
    ],
)
def test_clients_ask_for_the_same_name_wherever_the_files_are(source: dict[str, Any] | None, argument: str) -> None:
    asked = model(source)
    assert model_argument(asked) == argument
    assert served_name(asked) == (None if argument == ID else ID)


def test_a_folder_is_mounted_for_reading_and_nothing_is_downloaded() -> None:
    for source in ({"persistentVolumeClaim": CLAIM}, {"image": IMAGE}):
        ((volume, mount),) = source_volumes(model(source))
        assert mount == {"name": volume["name"], "mountPath": "/weights", "readOnly": True}
        assert source_environment(model(source)) == {"HF_HUB_OFFLINE": "1"}


def test_a_mirror_has_an_address_and_authorities() -> None:
    mirror = model({"hub": {"endpoint": "https://hub.example.com/", "caRef": {"name": "site", "key": "root.pem"}}})
    path = "/etc/energylens/certificates/root.pem"
    assert source_environment(mirror) == {
        "HF_ENDPOINT": "https://hub.example.com",
        "SSL_CERT_FILE": path,
        "REQUESTS_CA_BUNDLE": path,
    }
    ((volume, mount),) = source_volumes(mirror)
    assert volume["configMap"] == {"name": "site", "items": [{"key": "root.pem", "path": "root.pem"}]}
    assert f"{mount['mountPath']}/root.pem" == path
    assert (source_environment(model({"hub": {}})), source_volumes(model({"hub": {}}))) == ({}, [])
