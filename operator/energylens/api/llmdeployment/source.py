"""The source of a model's files: a hub, a folder in a volume, or an image."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from energylens.api.base import ApiModel, DataKey, ObjectName, Rule

RelativePath = Annotated[str, Field(max_length=1024, pattern=r"^$|^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$")]
"""A folder below the root of a volume; empty: the root."""


def _inside(source: ClaimSource | ImageSource) -> str | None:
    if ".." not in source.path.split("/"):
        return None
    return f"path '{source.path}' leaves the volume; leave out '..'"


_INSIDE = Rule(
    summary="path stays inside the volume",
    cel="!has(self.path) || !self.path.split('/').exists(part, part == '..')",
    message_cel="\"path '%s' leaves the volume; leave out '..'\".format([self.path])",
    check=_inside,
)


class CertificateRef(ApiModel):
    """A key of a ConfigMap in the object's namespace."""

    name: ObjectName = Field(description="Name of the ConfigMap.")
    key: DataKey = Field(default="ca.crt", description="Key that holds certificates in PEM.")


class HubSource(ApiModel):
    """The Hugging Face Hub, or a mirror of the Hub."""

    endpoint: Annotated[str, Field(min_length=1, max_length=2048, pattern=r"^https?://[^\s/]+[^\s]*$")] | None = Field(
        default=None, description="Address of a mirror (HF_ENDPOINT); absent: the Hugging Face Hub."
    )
    offline: bool = Field(
        default=False,
        description="The engine contacts no hub (HF_HUB_OFFLINE); the files must be in model.cache.",
    )
    ca_ref: CertificateRef | None = Field(
        default=None,
        description="ConfigMap with the certificate authorities that verify the mirror's certificate, instead of the "
        "image's own.",
    )


class ClaimSource(ApiModel):
    """A folder with config.json, tokenizer and weights in a volume of the namespace, mounted read-only."""

    rules: ClassVar[tuple[Rule, ...]] = (_INSIDE,)

    claim_name: ObjectName = Field(description="Name of the PersistentVolumeClaim.")
    path: RelativePath = Field(default="", description="Folder in the volume; empty: its root.")


class ImageSource(ApiModel):
    """An OCI image or artifact with the model's files, mounted as an image volume.

    That needs Kubernetes 1.35, or the feature gate ImageVolume.
    """

    rules: ClassVar[tuple[Rule, ...]] = (_INSIDE,)

    reference: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^\S+$")] = Field(
        description="Image, such as registry.example.com/models/llama-70b:1."
    )
    path: RelativePath = Field(default="", description="Folder in the image; empty: its root.")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        default=None, description="Pull policy of the image; absent: the default of Kubernetes for its tag."
    )


def _given(source: ModelSource) -> list[str]:
    parts = {"hub": source.hub, "persistentVolumeClaim": source.persistent_volume_claim, "image": source.image}
    return [name for name, part in parts.items() if part is not None]


def _one_source(source: ModelSource) -> str | None:
    found = len(_given(source))
    return None if found == 1 else f"{found} of hub, persistentVolumeClaim and image are set; set exactly one"


_COUNT = "(has(self.hub) ? 1 : 0) + (has(self.persistentVolumeClaim) ? 1 : 0) + (has(self.image) ? 1 : 0)"
_ONE_SOURCE = Rule(
    summary="set exactly one of hub, persistentVolumeClaim and image",
    cel=f"{_COUNT} == 1",
    message_cel=f"'%s of hub, persistentVolumeClaim and image are set; set exactly one'.format([{_COUNT}])",
    check=_one_source,
)


class ModelSource(ApiModel):
    """The source of the model's files."""

    rules: ClassVar[tuple[Rule, ...]] = (_ONE_SOURCE,)

    hub: HubSource | None = Field(default=None, description="The Hugging Face Hub, or a mirror of the Hub.")
    persistent_volume_claim: ClaimSource | None = Field(
        default=None, description="A folder in a PersistentVolumeClaim of the namespace."
    )
    image: ImageSource | None = Field(default=None, description="An OCI image or artifact.")
