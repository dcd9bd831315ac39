"""Which deployments are at rest: their last pass wrote nothing, and nothing that it looked at has changed since.

Another pass over one of them would find the same. With thousands of deployments the looks at each resync would else be
most of what an idle operator does. What no watch tells (volume claims, a referenced ConfigMap, events, a deadline)
keeps a deployment from resting, and a pass is still made every so often.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from datetime import datetime

from energylens.clock import Clock
from energylens.controller.state.inventory import Inventory
from energylens.controller.state.store import Body, Key, Store
from energylens.decide.deployment.observed.named_maps import names_of
from energylens.decide.deployment.observed.observation import Allowed, Observation
from energylens.decide.deployment.trials import rollback
from energylens.records import dataclass
from energylens.serving.claims import claim_fields

MOST_REST_SECONDS = 900.0
"""Without a whole pass: a measured window that gets no successor is told to be old after so long at least."""
MOST_UNMEASURED_REST_SECONDS = 3600.0
"""The same where nothing was measured, so that nothing grows old."""


@dataclass(frozen=True, slots=True)
class _Rest:
    seen: tuple[object, ...]
    """Objects, each of which is replaced by another one when it changes; kept, so that none is mistaken for it."""
    values: Hashable
    restricted: bool
    """The plan is the best one only within the watts available from budgets."""
    reach: int | None
    """GPUs of a product beyond which nodes do not concern the plan; None: all nodes do."""
    since: float
    until: datetime | None
    """When the schedule of the deployment asks for another plan; None where it never does."""


class Resting:
    """The state of each deployment at rest when it was last seen."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        children: Callable[[Key], tuple[object, ...]],
        measured: Callable[[Key, str], object],
        allowed: Callable[[Body], Allowed],
        inventory: Inventory,
    ) -> None:
        """Begin with none at rest.

        Args:
            store: Has what is watched.
            clock: The clock.
            children: Returns the children of a deployment as they are.
            measured: Returns the last window of a deployment's plan, by the hash of the plan.
            allowed: Returns what budgets leave to a deployment.
            inventory: Knows the nodes.
        """
        self._store = store
        self._clock = clock
        self._children = children
        self._measured = measured
        self._allowed = allowed
        self._inventory = inventory
        self._resting: dict[Key, _Rest] = {}

    def __len__(self) -> int:
        """Deployments at rest."""
        return len(self._resting)

    def settle(self, key: Key, body: Body, after: Observation, others: Hashable) -> None:
        """Let a deployment rest after a pass that wrote nothing, unless it depends on what no watch tells.

        Args:
            key: The deployment.
            body: What the pass was over.
            after: What the pass saw at its end.
            others: Further inputs of a pass, for comparison.
        """
        deployment, plan = after.deployment, after.planning.plan
        if (
            after.planning.decision != "SamePlan"
            or not after.planning.good
            or plan is None
            or names_of(deployment)
            or after.energy_account is not None
            or after.standing is not None
            or after.outgoing is not None
            or claim_fields(deployment)
            or rollback.triggers(deployment.spec)
            or self._store.deployments.get(key) is not body
        ):
            return
        restricted, reach = after.planning.restricted, after.planning.reach
        seen, values = self._seen(key, body), self._values(body, others, restricted, reach)
        until = after.planning.next_look
        self._resting[key] = _Rest(seen, values, restricted, reach, self._clock.monotonic(), until)

    def until(self, key: Key) -> datetime | None:
        """Return when a deployment at rest is reconciled at the latest; None for never."""
        rest = self._resting.get(key)
        return None if rest is None else rest.until

    def wake(self, key: Key) -> None:
        """Reconcile a deployment in full next time."""
        self._resting.pop(key, None)

    def is_at_rest(self, key: Key, body: Body, others: Hashable) -> bool:
        """Return whether a deployment rests, and is seen as it was then; where it is not, it rests no more."""
        rest = self._resting.get(key)
        if rest is None:
            return False
        now = self._seen(key, body)
        most = MOST_UNMEASURED_REST_SECONDS if body["status"].get("measured") is None else MOST_REST_SECONDS
        if (
            key not in self._store.edited
            and self._clock.monotonic() - rest.since < most
            and (rest.until is None or self._clock.now() < rest.until)
            and len(now) == len(rest.seen)
            and all(a is b for a, b in zip(now, rest.seen, strict=True))
            and self._values(body, others, rest.restricted, rest.reach) == rest.values
        ):
            return True
        self.wake(key)
        return False

    def _seen(self, key: Key, body: Body) -> tuple[object, ...]:
        plan = body["status"].get("plan") or {}
        return (
            body,
            self._measured(key, str(plan.get("hash"))),
            *self._store.workloads(key).bodies,
            *self._children(key),
            *self._store.pods_owned(key),
        )

    def _values(self, body: Body, others: Hashable, restricted: bool, reach: int | None) -> Hashable:
        """Return what is compared; of the watts that are left only whether they are enough, where that is enough."""
        plan = body["status"].get("plan") or {}
        planned = int((plan.get("predicted") or {}).get("powerWatts", 0))
        found = self._allowed(body)
        left = found.allowance
        watts: Hashable = None
        if left is not None:
            watts = (left.sheds, left.watts if restricted or left.watts < planned else "enough")
        # Which nodes a selector takes is seen of their labels.
        selects = bool((body["spec"].get("hardware") or {}).get("nodeSelector"))
        nodes = self._store.nodes_version if selects else self._inventory.seen_within(reach)
        return found.view, str(found.status), watts, nodes, others
