"""The settings file: what cannot work is refused with the field, the value and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from energylens.controller.settings import Settings, SettingsError, read_settings


def read(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "operator.yaml"
    path.write_text(text)
    return read_settings(path)


def test_no_file_and_an_empty_file_mean_the_defaults(tmp_path: Path) -> None:
    assert read_settings(None) == Settings() == read(tmp_path, "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("leaseSeconds: 6\nleaseRenewSeconds: 5", ("leaseRenewSeconds=5", "half of leaseSeconds=6")),
        ("measurement: {engineEndpointTemplate: 'http://{host}/metrics'}", ("{host}", "{namespace} and {pod}")),
        ("measurement: {engineEndpointTemplate: 'http://{pod/metrics'}", ("engineEndpointTemplate", "{pod}")),
        ("measurement: {prometheus: {}}", ("measurement.prometheus.url", "required")),
        ("measurement: {prometheus: {url: 'prometheus:9090'}}", ("prometheus.url='prometheus:9090'", "https?")),
        (
            "measurement: {prometheus: {url: 'http://p', matchers: 'up} or {a=\"b\"'}}",
            ("prometheus.matchers=", 'cluster="a"'),
        ),
        ("measurement: {prometheus: {url: 'http://p', lookbackSeconds: 5}}", ("lookbackSeconds=5", "60")),
        ("workers: 0", ("workers=0", "greater than or equal to 1")),
        ("wokers: 4", ("wokers", "not permitted")),
        ("[1, 2]", ("operator.yaml",)),
        ("a: [", ("operator.yaml",)),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


def test_the_longest_time_between_renewals_is_half_of_the_lease(tmp_path: Path) -> None:
    assert read(tmp_path, "leaseSeconds: 8\nleaseRenewSeconds: 4").lease_renew_seconds == 4


def test_a_prometheus_with_everything(tmp_path: Path) -> None:
    text = """
measurement:
  prometheus:
    url: https://thanos.example:9091
    bearerTokenFile: /var/run/token
    caFile: /etc/ca.crt
    headers: {X-Scope-OrgID: team}
    matchers: 'cluster="a",site!~"b|c"'
    labels: {pod: k8s_pod}
"""
    found = read(tmp_path, text).measurement.prometheus
    assert found is not None
    assert (str(found.bearer_token_file), found.headers, found.labels.pod) == (
        "/var/run/token",
        {"X-Scope-OrgID": "team"},
        "k8s_pod",
    )
    assert read_settings(None).measurement.prometheus is None
