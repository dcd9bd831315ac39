"""The hours of a profile in a ConfigMap: read as those of a spec, and refused with entry, field and value."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from tests.unit.decide.observations import deployment

from energylens.api.llmdeployment import LLMDeployment, ProfileHours
from energylens.decide.deployment.observed.named_maps import NamedMap, NamedMaps, names_of
from energylens.decide.deployment.observed.profile_hours import parse_hours, with_hours
from energylens.decide.reasons import Reason
from energylens.planner.search.week_load import WeekLoad

HOURS = [{"days": ["Mon"], "fromHour": 8, "requestsPerSecond": "20"}, {"toHour": 2, "requestsPerSecond": 3}]


def asked(**reference: Any) -> LLMDeployment:
    profile = {"timeZone": "Europe/Berlin", "hoursConfigMapRef": {"name": "rates", **reference}}
    workload = {"inputTokens": 300, "outputTokens": 100, "requestsPerSecond": "2", "profile": profile}
    return deployment(workload=workload)


def config_map(**data: str) -> NamedMap:
    return NamedMap({"kind": "ConfigMap", "metadata": {"name": "rates"}, "data": data})


@pytest.mark.parametrize("text", [yaml.safe_dump(HOURS), json.dumps(HOURS)])
def test_the_hours_of_the_config_map_are_those_of_the_week(text: str) -> None:
    found, missing = with_hours(asked(key="week"), config_map(week=text))
    assert missing is None
    profile = found.spec.workload.profile
    assert profile is not None
    assert profile.hours == tuple(ProfileHours.model_validate(entry) for entry in HOURS)
    assert profile.time_zone == "Europe/Berlin"
    rates = WeekLoad.of(found.spec.workload).rates
    assert (rates[0], rates[7], rates[8], rates[24], rates[26]) == ("3", "2", "20", "3", "2")


def test_hours_for_every_hour_of_the_week_are_read() -> None:
    days = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    entries = [
        {"days": [day], "fromHour": hour, "toHour": hour + 1, "requestsPerSecond": str(1 + hour)}
        for day in days
        for hour in range(24)
    ]
    assert len(parse_hours(json.dumps(entries))) == 168
    with pytest.raises(ValueError, match="has 169 entries; 1 to 168 are allowed"):
        parse_hours(json.dumps([*entries, entries[0]]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: b: c", "not YAML"),
        ("hours: []", "must be one list of entries with days, fromHour, toHour and requestsPerSecond"),
        ("", "must be one list"),
        ("[]", "has 0 entries; 1 to 168 are allowed"),
        ("[7]", "entry 1: 7: "),
        (
            "[{requestsPerSecond: 5}, {requestsPerSecond: -1}]",
            "entry 2, requestsPerSecond: '-1' must be greater than 0",
        ),
        ("[{requestsPerSecond: many}]", "entry 1, requestsPerSecond: 'many' is not a Kubernetes quantity"),
        ("[{fromHour: 24, requestsPerSecond: 5}]", "entry 1, fromHour: 24: Input should be less than or equal to 23"),
        ("[{fromHour: '8', requestsPerSecond: 5}]", 'entry 1, fromHour: "8": '),
        ("[{days: [Monday], requestsPerSecond: 5}]", 'entry 1, days[0]: "Monday": '),
        ("[{rate: 5}]", "entry 1, requestsPerSecond: Field required"),
        ("[{2026-11-27: 40}]", "entry 1, requestsPerSecond: Field required"),
        ("[{requestsPerSecond: 5, 2026-11-27: 40}]", "entry 1, 2026-11-27: 40: Extra inputs are not permitted"),
        ("[{requestsPerSecond: {2026-11-27: 40}}]", "entry 1, requestsPerSecond: Input should be a valid string"),
        ("[2026-11-27, {2026-11-27: 40}]", 'entry 1: "2026-11-27": Input should be an object'),
        ("[[{2026-11-27: 40}]]", 'entry 1: [{"2026-11-27": 40}]: Input should be an object'),
        ("[{requestsPerSecond: 5, until: 4}]", "entry 1, until: 4: Extra inputs are not permitted"),
        ("[{requestsPerSecond: 5, from_hour: 8}]", "entry 1, from_hour: 8: Extra inputs are not permitted"),
        # A key that JSON does not have.
        ("[{requestsPerSecond: 5, ? !!binary aGk= : 4}]", "entry 1, b'hi': 4: Extra inputs are not permitted"),
        ("[{requestsPerSecond: {? !!binary aGk= : 4}}]", "entry 1, requestsPerSecond: Input should be a valid string"),
        ("[[{? !!binary aGk= : 4}]]", "entry 1: [{}]: Input should be an object"),
        ("[{fromHour: 9, toHour: 8, requestsPerSecond: 5}]", "entry 1: fromHour (9) must be less than toHour (8)"),
        ("[{requestsPerSecond: 5, requestsPerSecond: 6}]", "key 'requestsPerSecond' appears twice"),
    ],
)
def test_a_list_that_cannot_be_read_is_named_with_entry_field_and_value(text: str, message: str) -> None:
    before = asked()
    found, missing = with_hours(before, config_map(**{"hours.yaml": text}))
    assert found is before
    assert missing is not None
    assert missing.reason is Reason.PROFILE_INVALID
    where = "spec.workload.profile.hoursConfigMapRef: ConfigMap rates, key 'hours.yaml': "
    assert missing.message.startswith(where)
    assert message in missing.message
    assert "\n" not in missing.message


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (NamedMap(), "ConfigMap rates does not exist"),
        (NamedMap(unreadable="forbidden"), "ConfigMap rates may not be read: forbidden"),
        (config_map(other="[]"), "ConfigMap rates has no key 'hours.yaml'; its keys: other"),
        (NamedMap({"kind": "ConfigMap"}), "ConfigMap rates has no key 'hours.yaml'; its keys: none"),
    ],
)
def test_a_config_map_that_is_missing_is_named(named: NamedMap, message: str) -> None:
    _, missing = with_hours(asked(), named)
    assert missing is not None
    assert missing.reason is Reason.PROFILE_MISSING
    assert missing.message == f"spec.workload.profile.hoursConfigMapRef: {message}"


def test_a_spec_without_a_reference_needs_no_config_map() -> None:
    plain = deployment()
    assert with_hours(plain, NamedMap()) == (plain, None)
    assert names_of(plain) == ()
    assert NamedMaps.of(plain, lambda _: pytest.fail("nothing is to be read")) == NamedMaps()


def test_the_config_maps_of_a_spec_are_read_by_their_names() -> None:
    both = asked().model_copy(
        update={
            "spec": deployment(model={"name": "a/b", "configRef": {"name": "shape"}}).spec.model_copy(
                update={"workload": asked().spec.workload}
            )
        }
    )
    assert names_of(both) == ("shape", "rates")
    found = NamedMaps.of(both, lambda name: {"metadata": {"name": name}})
    assert found.config.body == {"metadata": {"name": "shape"}}
    assert found.hours.body == {"metadata": {"name": "rates"}}
