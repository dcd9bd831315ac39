"""The ConfigMaps that a spec names, and the keys that are read. Pure."""

from __future__ import annotations

from collections.abc import Callable

from energylens.api.llmdeployment import LLMDeployment
from energylens.decide.deployment.observed.observation import Body
from energylens.records import dataclass


@dataclass(frozen=True)
class NamedMap:
    """A ConfigMap that a field of the spec names."""

    body: Body | None = None
    """The ConfigMap; None if it does not exist, or if the field is not set."""
    unreadable: str = ""
    """Why the ConfigMap cannot be read; "" if it can."""

    def text(self, where: str, key: str) -> tuple[str, str]:
        """Return the text of a key, and the reason if there is none; one of the two is "".

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
    job_hours: NamedMap = NamedMap()
    """The forecast or the tariff of ``spec.workload.job.start``."""

    @classmethod
    def of(cls, deployment: LLMDeployment, read: Callable[[str], Body | None]) -> NamedMaps:
        """Return the ConfigMaps; ``read`` returns a ConfigMap of the deployment's namespace by name."""
        names = config_name(deployment), hours_name(deployment), job_hours_name(deployment)
        return cls(*(NamedMap(None if name is None else read(name)) for name in names))


def config_name(deployment: LLMDeployment) -> str | None:
    """Return the name of the ConfigMap with the model's config.json; None if the catalogue is used."""
    ref = deployment.spec.model.config_ref
    return None if ref is None else ref.name


def hours_name(deployment: LLMDeployment) -> str | None:
    """Return the name of the ConfigMap with the hours of the profile; None if the spec has the hours, or no profile."""
    profile = deployment.spec.workload.profile
    ref = None if profile is None else profile.hours_config_map_ref
    return None if ref is None else ref.name


def job_hours_name(deployment: LLMDeployment) -> str | None:
    """Return the name of the ConfigMap that weighs the hours of a job; None where it starts at once, or no job."""
    job = deployment.spec.workload.job
    if job is None or job.start is None:
        return None
    ref = job.start.forecast_config_map_ref or job.start.tariff_config_map_ref
    return None if ref is None else ref.name


def names_of(deployment: LLMDeployment) -> tuple[str, ...]:
    """Return the names of the ConfigMaps of a deployment's namespace that planning reads."""
    names = config_name(deployment), hours_name(deployment), job_hours_name(deployment)
    return tuple(name for name in names if name is not None)
