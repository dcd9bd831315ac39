"""Any history of edits, faults, crashes and late news ends where its last spec says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.support.world import KEY, CrashError, Faults, World, llama, overrides

from energylens.cluster.errors import ClusterError, ConflictError, TransientError

SPECS = (
    llama(),
    llama(planning=overrides(maxBatchSize=16)),
    llama(planning=overrides(replicas=3)),
    llama(planning=overrides(tensorParallel=2)),
    llama(suspend=True),
    llama(slo={"itlMilliseconds": 1}),
    llama(engine={"extraArgs": ["--max-num-seqs=1"]}),
)
GOOD = range(4)
Fault = Literal["none", "crash", "refused for now", "answer lost", "late news"]


@dataclass(frozen=True)
class Step:
    """One edit, and what goes wrong in the pass after it."""

    spec: int
    fault: Fault
    write: int
    """Number of the write that the fault hits."""
    child_deleted: str | None


STEPS = st.builds(
    Step,
    spec=st.integers(0, len(SPECS) - 1),
    fault=st.sampled_from(["none", "crash", "refused for now", "answer lost", "late news"]),
    write=st.integers(1, 7),
    child_deleted=st.sampled_from([None, None, "Deployment", "Service", "ConfigMap"]),
)


async def take(world: World, step: Step) -> None:
    port = Faults(world.cluster)
    if step.fault == "crash":
        port.crash_after = step.write
    elif step.fault == "refused for now":
        port.errors[step.write] = ConflictError("the object has been modified")
    elif step.fault == "answer lost":
        port.lost_answers[step.write] = TransientError("time-out")
    world.start(port)
    world.cluster.put(SPECS[step.spec])
    if step.fault == "late news":
        world.delayed = []
    for key in [key for key in world.cluster.children() if key[0] == step.child_deleted]:
        world.cluster.remove(*key)
    try:
        await world.reconciler.reconcile(KEY)
    except ClusterError:
        pass
    except CrashError:
        world.start()
    port.disarm()
    world.deliver()


def without_limits(value: Any) -> Any:
    """Leave out the limits of the last rollout and the previous plan, which depend on what was replaced."""
    if isinstance(value, dict):
        return {
            name: without_limits(item)
            for name, item in value.items()
            if name not in ("strategy", "energylens.dev/applied-hash", "previousRevision")
        }
    return [without_limits(item) for item in value] if isinstance(value, list) else value


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(history=st.lists(STEPS, max_size=4), last=st.sampled_from(GOOD))
# Once left the table of the plan that was given up.
@example(history=[Step(3, "none", 1, None), Step(0, "crash", 1, None), Step(0, "crash", 3, None)], last=3)
async def test_any_history_ends_where_its_last_spec_says(history: list[Step], last: int) -> None:
    straight = World()
    straight.cluster.put(SPECS[last])
    await straight.settle()
    world = World()
    for step in history:
        await take(world, step)
    world.cluster.put(SPECS[last])
    await world.settle()
    assert without_limits(world.end_state()) == without_limits(straight.end_state())
    mark = world.mark
    world.start()
    await world.settle()
    assert world.writes_since(mark) == []
