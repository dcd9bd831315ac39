"""The config.json of a model from the ConfigMap that the spec names, and why there is none."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.decide.observations import deployment, plan

from energylens.api.llmdeployment import LLMDeployment
from energylens.decide.deployment.observed.model_config import model_config
from energylens.decide.deployment.observed.named_maps import NamedMap
from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.reasons import Reason

CURRENT = plan().model_dump(mode="json", by_alias=True, exclude_none=True)
WHERE = "spec.model.configRef: ConfigMap shapes"


def asking(status: dict[str, Any] | None = None, **ref: Any) -> LLMDeployment:
    return deployment(status, model={"name": "in-house", "configRef": {"name": "shapes", **ref}})


def test_a_model_of_the_catalogue_needs_none() -> None:
    assert model_config(deployment(), NamedMap()) == (None, None)


def test_the_named_key_is_read() -> None:
    data = {"config.json": '{"hidden_size": 4096}', "small.json": '{"hidden_size": 2048}'}
    assert model_config(asking(), NamedMap({"data": data})) == ({"hidden_size": 4096}, None)
    assert model_config(asking(key="small.json"), NamedMap({"data": data})) == ({"hidden_size": 2048}, None)


@pytest.mark.parametrize(
    ("named", "reason", "message"),
    [
        (NamedMap(), Reason.MODEL_CONFIG_MISSING, f"{WHERE} does not exist"),
        (NamedMap(unreadable="forbidden"), Reason.MODEL_CONFIG_MISSING, f"{WHERE} may not be read: forbidden"),
        (
            NamedMap({"data": {"b": "", "a": ""}}),
            Reason.MODEL_CONFIG_MISSING,
            f"{WHERE} has no key 'config.json'; its keys: a, b",
        ),
        (
            NamedMap({"data": {"config.json": "[1]"}}),
            Reason.MODEL_UNSUPPORTED,
            f"{WHERE}, key 'config.json': not a JSON object",
        ),
        (
            NamedMap({"data": {"config.json": "{"}}),
            Reason.MODEL_UNSUPPORTED,
            f"{WHERE}, key 'config.json': Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
    ],
)
def test_without_one_the_plan_in_the_status_stays_and_is_not_good(
    named: NamedMap, reason: Reason, message: str
) -> None:
    config, choice = model_config(asking({"plan": CURRENT}), named)
    assert config is None
    assert choice == PlanChoice(plan(), None, False, reason, message)
    assert model_config(asking(), named)[1] == PlanChoice(None, None, False, reason, message)
