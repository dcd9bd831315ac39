"""The operator's settings file: YAML, every key with a default."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.alias_generators import to_camel


class SettingsError(ValueError):
    """The settings file cannot be used; one line that names the field, the value and what is allowed."""


class _Section(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class MeasurementSettings(_Section):
    """Where energy and tokens are read, and how often."""

    dcgm_endpoints: tuple[str, ...] = Field(
        default=(), description="URLs of dcgm-exporter; empty: pods labelled as dcgm-exporter are found in the cluster."
    )
    dcgm_port: int = Field(default=9400, ge=1, le=65535, description="Port of found dcgm-exporter pods.")
    engine_endpoint_template: str | None = Field(
        default=None, description="URL with {namespace} and {pod}; absent: the pod's address and the engine's port."
    )

    @field_validator("engine_endpoint_template")
    @classmethod
    def _is_a_template(cls, value: str | None) -> str | None:
        try:
            (value or "").format(namespace="", pod="")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError("allowed are {namespace} and {pod}, and {{ for a brace") from error
        return value

    scrape_seconds: float = Field(default=15.0, gt=0, description="Time between two reads.")


class Settings(_Section):
    """All settings."""

    workers: int = Field(default=32, ge=1, le=512, description="LLMDeployments worked on at the same time.")
    resync_seconds: float = Field(
        default=300.0, gt=0, description="Each LLMDeployment is looked at this often at least."
    )
    replan_seconds: float = Field(
        default=5.0, gt=0, description="Least time between two attempts to plan what had no feasible plan."
    )
    lease_seconds: float = Field(default=15.0, ge=3, description="Duration of the leader lease.")
    lease_renew_seconds: float = Field(default=5.0, gt=0, description="Time between two renewals.")
    measurement: MeasurementSettings = MeasurementSettings()

    @field_validator("lease_renew_seconds")
    @classmethod
    def _renews_in_time(cls, value: float, info: ValidationInfo) -> float:
        duration = info.data.get("lease_seconds")
        if duration is not None and value > duration / 2:
            raise ValueError(f"must be at most half of leaseSeconds={duration:g}, so that one renewal may fail")
        return value


def read_settings(path: Path | None) -> Settings:
    """Return the settings of a file; the defaults when there is none.

    Raises:
        SettingsError: the file cannot be read or says something that is not allowed.
    """
    if path is None:
        return Settings()
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return Settings.model_validate(document)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{path}: {where}={first['input']!r}: {first['msg']}") from error
