"""Changes of a spec on a real control plane, and what must hold after each (the oracles of Acto, SOSP 2023)."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from tests.support.api_client import ApiError
from tests.support.end_state import Object, State, differences, end_state
from tests.support.fault_scenarios import POLL_SECONDS, STEP_SECONDS
from tests.support.faulty_operator import FaultyOperator
from tests.support.operator_cluster import llmdeployment
from tests.support.schema_changes import Change, Kind, changes, spec_schema
from tests.support.spaces import Space

from energylens.cluster.resources import DEPLOYMENT, LLM_DEPLOYMENT
from energylens.decide.reasons import ConditionType, Reason
from energylens.serving.metadata import PLAN_LABEL
from energylens_dev.devcluster import eventually

SCHEMA = spec_schema("llmdeployments")
QUIET_SECONDS = 1.0
"""Without a write of the operator and a change of the object for so long a deployment is at rest."""
OF_PODS = (ConditionType.READY.value, ConditionType.PROGRESSING.value)
"""Conditions that follow the pods: how far a rollout is depends on when one looks."""
LOOKED_AT = "looked-at"
"""A label that means nothing to the operator."""
NEVER = (Reason.INTERNAL_ERROR.value, Reason.API_SERVER_ERROR.value)
"""Reasons of defects and of faults of the wire, of which there are none here."""


@dataclass
class World:
    """Two namespaces with equal nodes: one is walked through in steps, the other reaches the same spec at once."""

    operator: FaultyOperator
    walk: Space
    jump: Space
    steps: Counter[str] = field(default_factory=Counter)
    """How many changes of a spec were asked for, by what came of them."""
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def apply(self, place: Space, name: str, spec: Mapping[str, Any], **metadata: Any) -> None:
        """Apply a spec as a whole.

        Raises:
            ApiError: the API server refuses it.
        """
        body = llmdeployment(name)
        place.apply({**body, "metadata": {**body["metadata"], **metadata}, "spec": spec})

    def seen(self, place: Space, name: str) -> Object:
        """Wait until every condition is about the present spec; return the object."""

        def check() -> Object:
            body = self.get(place, name)
            generation, status = body["metadata"]["generation"], body.get("status") or {}
            conditions = status.get("conditions", ())
            assert status.get("observedGeneration") == generation, f"{name}: generation {generation} is not seen"
            old = [c["type"] for c in conditions if c.get("observedGeneration") != generation]
            assert conditions, f"{name} has no conditions"
            assert not old, f"{name}: of an earlier generation: {old}"
            return body

        return eventually(check, STEP_SECONDS, interval=0.05)

    def get(self, place: Space, name: str) -> Object:
        """Return an object that is there."""
        body = place.api.get(LLM_DEPLOYMENT, place.namespace, name)
        assert body is not None, f"no LLMDeployment {name}"
        return body

    def writes(self, place: Space) -> int:
        """Return how often the operator has written in a namespace."""
        return sum(call.is_write and call.namespace == place.namespace for call in self.operator.proxy.calls)

    def at_rest(self, place: Space, name: str) -> State:
        """Wait until nothing moves; return what is there of one deployment."""
        writes, state, since = self.writes(place), end_state(place), time.monotonic()
        deadline = since + STEP_SECONDS
        while time.monotonic() - since < QUIET_SECONDS:
            time.sleep(POLL_SECONDS)
            again = self.writes(place), end_state(place)
            if again != (writes, state):
                (writes, state), since = again, time.monotonic()
            assert time.monotonic() < deadline, f"{place.namespace}/{name} does not come to rest"
        return state


def verdict(body: Object) -> tuple[str, str]:
    """Return reason and message of PlanReady."""
    (found,) = [c for c in body["status"]["conditions"] if c["type"] == ConditionType.PLAN_READY.value]
    return found["reason"], found.get("message", "")


def is_planned(body: Object) -> bool:
    """Return whether the present spec has a plan."""
    return any(
        c["type"] == ConditionType.PLAN_READY.value and c["status"] == "True" for c in body["status"]["conditions"]
    )


def without_empty_lists(value: Any) -> Any:
    """Return a spec without its empty lists, and without objects that hold nothing else.

    An apply with an empty list of type set or map does not make its manager own the list, so that the list stays when
    the next apply leaves it out.
    """
    if isinstance(value, Mapping):
        cleaned = {name: without_empty_lists(part) for name, part in value.items() if part != []}
        return {name: part for name, part in cleaned.items() if part or part == value[name]}
    return [without_empty_lists(part) for part in value] if isinstance(value, list) else value


def decided(state: State, name: str) -> State:
    """Return what the operator decided about a deployment, without how far its pods are and what came before."""
    found: State = {}
    for key, body in state.items():
        if key == "Pods" or not key.split(" ", 1)[1].startswith(name):
            continue
        kept: Object = {part: value for part, value in body.items() if part not in ("status", "metadata")}
        labels = body["metadata"].get("labels") or {}
        kept["labels"] = {name: value for name, value in labels.items() if name != LOOKED_AT}
        if body["kind"] == LLM_DEPLOYMENT.kind:
            kept["spec"] = without_empty_lists(body["spec"])
            status = body["status"]
            kept["plan"] = status.get("plan")
            kept["conditions"] = {
                c["type"]: (c["status"], c["reason"]) for c in status["conditions"] if c["type"] not in OF_PODS
            }
        if body["kind"] == DEPLOYMENT.kind:
            # What surges depends on the pods that run at the moment.
            kept["spec"] = {part: value for part, value in body["spec"].items() if part != "strategy"}
        found[key] = kept
    return found


class Transitions(RuleBasedStateMachine):
    """One deployment that goes from spec to spec; a subclass says in which world."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.name = f"walker-{next(self.world.numbers)}"
        self.spec: Object = llmdeployment()["spec"]
        self.jumped: Object | None = None
        """The spec of the deployment in the other namespace; None while there is none."""

    def teardown(self) -> None:
        for place in (self.world.walk, self.world.jump):
            place.api.delete(LLM_DEPLOYMENT, place.namespace, self.name)

    @initialize()
    def begin(self) -> None:
        self._become(self.world.walk, self.spec)

    @rule(change=changes(SCHEMA, Kind.VALID, Kind.BOUNDARY, Kind.ABSENT))
    def takes_a_change_or_says_why_not(self, change: Change) -> None:
        """A to B: reflected, or refused with the field; what is refused is taken back, and all is as before."""
        wanted, before = change.applied_to(self.spec), self.spec
        state = self._state(self.world.walk)
        if not self._asks(change, wanted):
            return
        body = self.world.seen(self.world.walk, self.name)
        self._is_reflected_or_explained(change, body)
        if is_planned(body):
            self.spec = wanted
            return
        self._returns(change, before, state)

    @rule(change=changes(SCHEMA, Kind.INVALID))
    def refuses_what_the_schema_forbids(self, change: Change) -> None:
        """The API server names the field, and the object stays as it is."""
        before = self.world.get(self.world.walk, self.name)
        assert not self._asks(change, change.applied_to(self.spec)), f"{change} was taken"
        after = self.world.get(self.world.walk, self.name)
        assert after["spec"] == before["spec"], f"{change} was refused, and the spec changed"

    @rule(change=changes(SCHEMA, Kind.VALID, Kind.BOUNDARY))
    def comes_back_as_it_was(self, change: Change) -> None:
        """A to B to A equals A."""
        before, state = self.spec, self._state(self.world.walk)
        if self._asks(change, change.applied_to(self.spec)):
            self._is_reflected_or_explained(change, self.world.seen(self.world.walk, self.name))
            self._returns(change, before, state)

    @rule()
    def is_where_one_jump_leads(self) -> None:
        """A to B to C equals A to C: the other deployment goes from where it last was to the present spec at once."""
        if self.jumped == self.spec:
            return
        self._become(self.world.jump, self.spec)
        self.jumped = self.spec
        self._are_alike("one jump", decided(self.world.at_rest(self.world.jump, self.name), self.name))

    @rule()
    def writes_nothing_in_a_second_pass(self) -> None:
        """A label that means nothing brings the deployment into the queue; nothing is written."""
        world, place = self.world, self.world.walk
        world.at_rest(place, self.name)
        before = world.get(place, self.name)
        writes, passes = world.writes(place), self._passes()
        world.apply(place, self.name, self.spec, labels={LOOKED_AT: str(time.monotonic_ns())})
        eventually(lambda: self._passes() > passes, STEP_SECONDS, interval=0.05)
        eventually(lambda: world.operator.metric("energylens_queue_length") == 0, STEP_SECONDS, interval=0.05)
        new = [call for call in world.operator.proxy.calls if call.is_write and call.namespace == place.namespace]
        if len(new) != writes:
            changed = "; ".join(differences(before["status"], world.get(place, self.name)["status"]))
            raise AssertionError(f"a second pass wrote {new[writes:]}: {changed}; the spec: {json.dumps(self.spec)}")
        world.steps["second pass"] += 1

    def _passes(self) -> float:
        return self.world.operator.metric('energylens_reconciles_total{result="ok"}')

    def _become(self, place: Space, spec: Object) -> None:
        self.world.apply(place, self.name, spec)
        self.world.seen(place, self.name)

    def _state(self, place: Space) -> State:
        return decided(end_state(place), self.name)

    def _asks(self, change: Change, wanted: Object) -> bool:
        """Apply the wanted spec; return whether the API server took it, and check that a refusal names the field."""
        refusal = self._refusal(wanted)
        if refusal is None:
            self.world.steps["taken"] += 1
            return True
        # A value of another type in a server-side apply is answered with 500.
        typed = refusal.status == 500 and "failed to create typed patch object" in refusal.message
        assert typed or refusal.status in (400, 422), f"{change}: {refusal}"
        names = [part for part in change.path if part in refusal.message]
        assert names, f"{change}: the refusal names no part of it: {refusal.message}"
        self.world.steps["refused by the API server"] += 1
        return False

    def _refusal(self, wanted: Object) -> ApiError | None:
        try:
            self.world.apply(self.world.walk, self.name, wanted)
        except ApiError as error:
            return error
        return None

    def _is_reflected_or_explained(self, change: Change, body: Object) -> None:
        for condition in body["status"]["conditions"]:
            assert condition["reason"] not in NEVER, f"{change}: {condition}"
        reason, message = verdict(body)
        if not is_planned(body):
            assert message, f"{change}: {reason} without a message"
            self.world.steps[reason] += 1
            return
        degraded = [c for c in body["status"]["conditions"] if c["type"] == ConditionType.DEGRADED.value]
        if any(c["status"] == "True" for c in degraded):
            assert all(c.get("message") for c in degraded), f"{change}: {degraded}"
            self.world.steps["degraded"] += 1
            return
        self.world.steps["planned"] += 1
        deployment = self.world.walk.api.get(DEPLOYMENT, self.world.walk.namespace, self.name)
        assert deployment is not None, f"{change}: planned, and there is no Deployment"
        running = deployment["metadata"]["labels"].get(PLAN_LABEL)
        assert running == body["status"]["plan"]["hash"], f"{change}: {running} runs"

    def _returns(self, change: Change, spec: Object, state: State) -> None:
        self._become(self.world.walk, spec)
        self.world.steps["taken back"] += 1
        self._are_alike(f"{change} taken back", state)

    def _are_alike(self, what: str, expected: State) -> None:
        def check() -> bool:
            found = list(differences(expected, self._state(self.world.walk)))
            assert not found, f"{what}: {'; '.join(found[:8])}; the spec: {json.dumps(self.spec)}"
            return True

        eventually(check, 60, interval=POLL_SECONDS)
