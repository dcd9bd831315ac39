"""The operator's settings file: YAML, every key with a default."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.alias_generators import to_camel

from energylens.documents import DocumentError, yaml_documents

_MATCHER = r'[A-Za-z_]\w*(=|!=|=~|!~)"[^"\\]*"'


class SettingsError(ValueError):
    """The settings file cannot be used; one line that names the field, the value and what is allowed."""


class _Section(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class PrometheusLabels(_Section):
    """Labels of the energy series, where they are not those of dcgm-exporter or Prometheus's ``exported_*``."""

    uuid: str = Field(default="", description="Label with the GPU's UUID; empty: UUID or uuid.")
    pod: str = Field(default="", description="Label with the pod that holds the GPU; empty: exported_pod or pod.")
    namespace: str = Field(default="", description="Label with that pod's namespace.")


class PrometheusSettings(_Section):
    """A Prometheus that scrapes dcgm-exporter."""

    url: str = Field(pattern=r"^https?://\S+$", description="Base URL, without /api/v1.")
    bearer_token_file: Path | None = Field(default=None, description="File with a token; read at each request.")
    ca_file: Path | None = Field(default=None, description="PEM file of the authorities to trust.")
    headers: dict[str, str] = Field(default={}, description="Sent with each request, such as X-Scope-OrgID.")
    matchers: str = Field(default="", description='More label matchers of PromQL, such as cluster="a".')
    lookback_seconds: float = Field(
        default=1800.0, ge=60, le=7200, description="Range that is asked for after a start or an outage."
    )
    labels: PrometheusLabels = PrometheusLabels()

    @field_validator("matchers")
    @classmethod
    def _are_matchers(cls, value: str) -> str:
        if value and not re.fullmatch(rf"{_MATCHER}(,{_MATCHER})*", value):
            raise ValueError('allowed are matchers such as cluster="a",site!="b"')
        return value


class MeasurementSettings(_Section):
    """Where and how often energy and tokens are read."""

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
    statuses_per_second: float = Field(
        default=20.0, gt=0, le=1000, description="Statuses that new measurements write per second at most."
    )
    prometheus: PrometheusSettings | None = Field(
        default=None, description="Where energy is read first; absent: dcgm-exporter only."
    )


class BudgetSettings(_Section):
    """How energy budgets are kept."""

    status_seconds: float = Field(
        default=60.0, gt=0, description="Time between two writes of a budget's status while only its figures change."
    )
    unmeasured_seconds: float = Field(
        default=900.0, ge=0, description="A member that is not measured for so long makes its budget uncheckable."
    )


class Settings(_Section):
    """All settings."""

    workers: int = Field(default=32, ge=1, le=512, description="LLMDeployments worked on at the same time.")
    resync_seconds: float = Field(
        default=300.0, gt=0, description="Longest time between two checks of an LLMDeployment."
    )
    replan_seconds: float = Field(
        default=5.0, gt=0, description="Least time between two attempts to plan a deployment without a feasible plan."
    )
    watch_silence_seconds: float = Field(
        default=180.0,
        gt=60,
        description="A watch that brought nothing for so long, not even a bookmark, fails the liveness probe; "
        "an API server sends a bookmark every minute.",
    )
    lease_seconds: float = Field(default=15.0, ge=3, description="Duration of the leader lease.")
    lease_renew_seconds: float = Field(default=5.0, gt=0, description="Time between two renewals.")
    measurement: MeasurementSettings = MeasurementSettings()
    budgets: BudgetSettings = BudgetSettings()

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
        documents = yaml_documents(path.read_text(encoding="utf-8-sig"))
        if len(documents) > 1:
            raise DocumentError(f"holds {len(documents)} documents, and must hold one")
        return Settings.model_validate(documents[0] if documents else {})
    except (OSError, UnicodeDecodeError, DocumentError) as error:
        raise SettingsError(f"{path}: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{path}: {where}={first['input']!r}: {first['msg']}") from error
