"""The ConfigMaps that a spec names, and which key of them is read. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from energylens.api.llmdeployment import LLMDeployment
from energylens.decide.deployment.observation import Body


@dataclass(frozen=True)
class NamedMap:
    """A ConfigMap that a field of the spec names."""

    body: Body | None = None
    """The ConfigMap; None if it does not exist, or if the field is not set."""
    unreadable: str = ""
    """Why it may not be read; "" where it may."""

    def text(self, where: str, key: str) -> tuple[str, str]:
        """Return the text of a key, and why there is none; one of the two is "".

        Args:
            where: The field and the ConfigMap, for the message.
            key: The key.
        """
        if self.unreadable:
            return "", f"{where} may not be read: {self.unreadable}"
        if self.body is None:
            return "", f"{where} does not exist"
        data = self.body.get("data") or {}
        if key not in data:
            return "", f"{where} has no key {key!r}; its keys: {', '.join(sorted(data)) or 'none'}"
        return str(data[key]), ""


@dataclass(frozen=True)
class NamedMaps:
    """The ConfigMaps that the spec of a deployment names."""

    config: NamedMap = NamedMap()
    """``spec.model.configRef``."""
    hours: NamedMap = NamedMap()
    """``spec.workload.profile.hoursConfigMapRef``."""

    @classmethod
    def of(cls, deployment: LLMDeployment, read: Callable[[str], Body | None]) -> NamedMaps:
        """Return the ConfigMaps; ``read`` returns one of the deployment's namespace by its name."""
        config, hours = config_name(deployment), hours_name(deployment)
        return cls(NamedMap(None if config is None else read(config)), NamedMap(None if hours is None else read(hours)))


def config_name(deployment: LLMDeployment) -> str | None:
    """Return the name of the ConfigMap with the model's config.json; None where the catalogue has the model."""
    ref = deployment.spec.model.config_ref
    return None if ref is None else ref.name


def hours_name(deployment: LLMDeployment) -> str | None:
    """Return the name of the ConfigMap with the hours of the profile; None where the spec has them, or no profile."""
    profile = deployment.spec.workload.profile
    ref = None if profile is None else profile.hours_config_map_ref
    return None if ref is None else ref.name


def names_of(deployment: LLMDeployment) -> tuple[str, ...]:
    """Return the names of the ConfigMaps of a deployment's namespace that planning reads."""
    return tuple(name for name in (config_name(deployment), hours_name(deployment)) if name is not None)
