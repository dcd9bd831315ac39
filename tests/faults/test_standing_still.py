"""A leader that stood still between two writes of a pass, while another operator took over.

What it had still to write is of before: a late status brings its old plan back, which the next operator believes and
keeps; a late PodDisruptionBudget is not even watched. So nothing is written once the lease has run out.
"""

from __future__ import annotations

import pytest
from tests.support.world import KEY, World, llama, overrides

from energylens.cluster.fence import FencedCluster, LeaseLostError
from energylens.cluster.port import Object


def more_replicas(body: Object) -> None:
    body["spec"]["planning"] = overrides(replicas=3)


def another_load(body: Object) -> None:
    del body["spec"]["planning"]
    body["spec"]["workload"]["requestsPerSecond"] = 9


@pytest.mark.parametrize("writes", range(5))
async def test_what_it_had_still_to_write_does_not_undo_what_its_successor_wrote(writes: int) -> None:
    world = World()
    world.cluster.put(llama())
    await world.settle()
    world.cluster.edit("LLMDeployment", *KEY, more_replicas)
    mark, left = world.mark, writes

    def is_held() -> bool:
        nonlocal left
        left -= 1
        return left >= 0

    world.start(FencedCluster(world.cluster, is_held))
    old = world.reconciler
    with pytest.raises(LeaseLostError):
        await old.reconcile(KEY)
    assert len(world.writes_since(mark)) == writes
    world.cluster.edit("LLMDeployment", *KEY, another_load)
    world.start()
    await world.settle()
    end = world.end_state()
    with pytest.raises(LeaseLostError):
        await old.reconcile(KEY)
    assert world.end_state() == end
    plan = world.status()["plan"]
    assert world.cluster.objects["Deployment", *KEY]["spec"]["replicas"] == plan["replicas"]
    assert (
        world.status()["observedGeneration"] == world.cluster.objects["LLMDeployment", *KEY]["metadata"]["generation"]
    )
