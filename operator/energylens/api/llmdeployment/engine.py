"""The model to serve, and the engine that serves it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from energylens.api.base import (
    ATOMIC_LIST,
    AbsolutePath,
    ApiModel,
    DataKey,
    ObjectName,
    Rule,
    distinct_by,
    map_list,
)
from energylens.api.llmdeployment.source import ModelSource


class ConfigMapKeyRef(ApiModel):
    """A key of a ConfigMap in the object's namespace."""

    name: ObjectName = Field(description="Name of the ConfigMap.")
    key: DataKey = Field(default="config.json", description="Key that holds the model's Hugging Face config.json.")


class SecretKeyRef(ApiModel):
    """A key of a Secret in the object's namespace."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: DataKey = Field(default="HF_TOKEN", description="Key that holds the token.")


def _one_cache(cache: ModelCache) -> str | None:
    if cache.persistent_volume_claim is not None and cache.host_path is not None:
        return (
            f"persistentVolumeClaim '{cache.persistent_volume_claim}' and hostPath '{cache.host_path}' are both set; "
            "set exactly one"
        )
    if cache.persistent_volume_claim is None and cache.host_path is None:
        return "neither persistentVolumeClaim nor hostPath is set; set exactly one"
    return None


_ONE_CACHE = Rule(
    summary="set exactly one of persistentVolumeClaim and hostPath",
    cel="has(self.persistentVolumeClaim) != has(self.hostPath)",
    message_cel="has(self.hostPath) ? "
    "\"persistentVolumeClaim '%s' and hostPath '%s' are both set; set exactly one\".format("
    "[self.persistentVolumeClaim, self.hostPath]) : "
    "'neither persistentVolumeClaim nor hostPath is set; set exactly one'",
    check=_one_cache,
)


class ModelCache(ApiModel):
    """Storage that keeps weights between pod restarts."""

    rules: ClassVar[tuple[Rule, ...]] = (_ONE_CACHE,)

    persistent_volume_claim: ObjectName | None = Field(
        default=None, description="A PersistentVolumeClaim of the namespace. Set this or hostPath."
    )
    host_path: AbsolutePath | None = Field(
        default=None, description="A directory on every GPU node. Set this or persistentVolumeClaim."
    )
    path: AbsolutePath = Field(default="/models", description="Mount path of the cache in the engine's container.")


def _revision_of_a_hub(model: Model) -> str | None:
    if model.revision is None or model.source is None or model.source.hub is not None:
        return None
    return f"revision '{model.revision}' belongs to a hub's repository, but source is a folder; leave revision out"


_REVISION_OF_A_HUB = Rule(
    summary="revision needs a hub, not a folder",
    cel="!has(self.revision) || !has(self.source) || has(self.source.hub)",
    message_cel="\"revision '%s' belongs to a hub's repository, but source is a folder; leave revision out\""
    ".format([self.revision])",
    check=_revision_of_a_hub,
)


def _offline_with_a_cache(model: Model) -> str | None:
    if model.source is None or model.source.hub is None or not model.source.hub.offline or model.cache is not None:
        return None
    return "source.hub.offline needs cache: a pod without a cache has no files; set cache, or another source"


_OFFLINE_WITH_A_CACHE = Rule(
    summary="source.hub.offline needs cache",
    cel="!has(self.source) || !has(self.source.hub) || !has(self.source.hub.offline) || !self.source.hub.offline || "
    "has(self.cache)",
    message_cel="'source.hub.offline needs cache: a pod without a cache has no files; set cache, or another source'",
    check=_offline_with_a_cache,
)


class Model(ApiModel):
    """The model to serve."""

    rules: ClassVar[tuple[Rule, ...]] = (_REVISION_OF_A_HUB, _OFFLINE_WITH_A_CACHE)

    name: str = Field(
        min_length=1,
        max_length=253,
        pattern=r"^[A-Za-z0-9._/-]+$",
        description="Hugging Face id, such as meta-llama/Llama-3.1-70B-Instruct. "
        "A model that is not in the operator's catalogue needs configRef.",
    )
    revision: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9._/-]+$")] | None = Field(
        default=None, description="Branch, tag or commit of the model's repository; absent: its main branch."
    )
    quantization: Literal["None", "FP8", "MXFP4", "NVFP4", "INT8", "INT4"] | None = Field(
        default=None,
        description="Number format of the weights. Absent: the format in the model's repository. None: 16 bits.",
    )
    config_ref: ConfigMapKeyRef | None = Field(
        default=None, description="ConfigMap with the model's config.json, for models that are not in the catalogue."
    )
    token_secret_ref: SecretKeyRef | None = Field(
        default=None, description="Secret with the Hugging Face token, for models whose download needs a token."
    )
    source: ModelSource | None = Field(
        default=None, description="Source of the model's files; absent: the Hugging Face Hub."
    )
    cache: ModelCache | None = Field(
        default=None,
        description="Storage that keeps weights between pod restarts; absent: every pod downloads the weights.",
    )


class EnvVar(ApiModel):
    """A plain environment variable of the engine's container."""

    name: str = Field(min_length=1, max_length=253, pattern=r"^[^=\s]+$", description="Name of the variable.")
    value: str = Field(default="", max_length=32_768, description="Value of the variable.")


class Engine(ApiModel):
    """The serving engine."""

    type: Literal["VLLM", "SGLang"] = Field(default="VLLM", description="The engine that serves the model.")
    image: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^\S+$")] | None = Field(
        default=None,
        description="Container image of the engine; absent: the version that this operator was tested with.",
    )
    extra_args: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=4096)], ...],
        Field(max_length=128, json_schema_extra=ATOMIC_LIST),
    ] = Field(
        default=(),
        description="Arguments added to the engine's command line. The plan decides parallelism and batch size; to fix "
        "these, use spec.planning.overrides.",
    )
    env: Annotated[
        tuple[EnvVar, ...], Field(max_length=128, json_schema_extra=map_list("name")), distinct_by("name")
    ] = Field(default=(), description="Environment variables of the engine's container.")
