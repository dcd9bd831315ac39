"""A plan with separate prefill and decode: it comes, changes and goes; pods that cannot work together never meet."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tests.faults.test_measuring import Lab
from tests.support.fake_pods import node, run_pods
from tests.support.world import KEY, NAMESPACE, CrashError, Faults, World, llama

from energylens.api.parse import parse_llmdeployment
from energylens.cli.text.status import page
from energylens.cluster.errors import ForbiddenError
from energylens.serving.roles import exchange

ROUTING = {
    "inferencePool": {"endpointPicker": {"name": "epp"}},
    "disaggregation": {"router": "LLMD", "sidecarImage": "example/routing-sidecar:v1"},
}
LOAD = {"inputTokens": 4000, "outputTokens": 200, "requestsPerSecond": 10}
SLO = {"ttftMilliseconds": 1000, "itlMilliseconds": 20}
DECODE, PREFILL = ("Deployment", *KEY), ("Deployment", NAMESPACE, "llama-prefill")
ROLE, KV_CACHE = "llm-d.ai/role", "energylens.dev/kv-cache"


def spec(disaggregation: str = "Follow", **changes: Any) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "workload": LOAD,
        "slo": SLO,
        "planning": {"disaggregation": disaggregation},
        "routing": ROUTING,
        # A small space, for the sake of the tests' time.
        "hardware": {"maxGPUs": 12, "maxGPUsPerReplica": 2},
    }
    return llama(**(parts | changes))


def together(**changes: Any) -> dict[str, Any]:
    """Return the spec of a plan without roles, which is left at once when roles are followed."""
    planning = {"disaggregation": "Never", "replan": {"cooldownSeconds": 0}}
    return spec(planning=planning, **changes)


def labels_of(world: World) -> list[dict[str, str]]:
    return [body["metadata"]["labels"] for (kind, _, _), body in world.cluster.objects.items() if kind == "Pod"]


def roles(world: World) -> list[str]:
    return sorted(labels.get(ROLE, "none") for labels in labels_of(world))


def watched(world: World) -> list[tuple[str, str]]:
    """Return the pairs of pods that the router could choose and that cannot exchange the KV cache; it grows."""
    found: list[tuple[str, str]] = []

    def look(*_: Any) -> None:
        kinds: dict[str, set[str]] = {"decode": set(), "prefill": set()}
        for labels in labels_of(world):
            if ROLE in labels:
                kinds[labels[ROLE]].add(labels[KV_CACHE])
        found.extend((a, b) for a in kinds["decode"] for b in kinds["prefill"] if not exchange(a, b))

    world.cluster.listeners.append(look)
    return found


async def serving(body: dict[str, Any], nodes: int = 2) -> World:
    world = World()
    world.cluster.served.add("InferencePool")
    for index in range(2, nodes):
        world.cluster.put(node(f"h100-{index}"))
    world.cluster.put(body)
    await world.settle()
    assert world.condition("Ready")["status"] == "True", world.condition("Ready")
    return world


def service(world: World) -> dict[str, str]:
    selector: dict[str, str] = world.cluster.objects["Service", *KEY]["spec"]["selector"]
    return selector


async def test_both_roles_run_and_the_status_shows_both() -> None:
    world = await serving(spec())
    plan, active = world.status()["plan"], world.status()["activeRevision"]
    assert roles(world) == ["decode"] * plan["replicas"] + ["prefill"] * plan["prefill"]["replicas"]
    assert plan["gpus"] == plan["replicas"] + plan["prefill"]["replicas"] == 3
    assert active["readyReplicas"] == active["replicas"] == plan["replicas"]
    assert active["prefill"]["readyReplicas"] == plan["prefill"]["replicas"]
    assert active["prefill"]["workloadRef"]["name"] == "llama-prefill"
    assert "(decode 1 of 1, prefill 2 of 2)" in world.condition("Ready")["message"]
    assert "prompts on 2 x TP1" in world.condition("PlanReady")["message"]
    assert service(world)["energylens.dev/role"] == "decode"
    pool = world.cluster.objects["InferencePool", *KEY]["spec"]["selector"]["matchLabels"]
    assert all(pool.items() <= labels.items() for labels in labels_of(world))
    shown = page(parse_llmdeployment(world.cluster.objects["LLMDeployment", *KEY], strict=False))
    assert "Deployment llama; 2 of 2 prefill replicas are ready, Deployment llama-prefill" in shown
    mark = world.mark
    await world.settle()
    assert world.writes_since(mark) == []


async def test_without_roles_and_back() -> None:
    world = await serving(together())
    assert set(roles(world)) == {"none"}
    assert "prefill" not in world.status()["plan"]
    bad = watched(world)
    planning = {"disaggregation": "Follow", "replan": {"cooldownSeconds": 0}}
    world.cluster.put(spec(planning=planning))
    await world.settle()
    assert world.condition("Ready")["status"] == "True", world.condition("Ready")
    assert roles(world) == ["decode", "prefill", "prefill"]
    world.cluster.put(together())
    await world.settle()
    assert world.condition("Ready")["status"] == "True", world.condition("Ready")
    assert set(roles(world)) == {"none"}
    assert PREFILL not in world.cluster.objects
    assert "energylens.dev/role" not in service(world)
    assert "prefill" not in world.status()["activeRevision"]
    assert bad == []


async def test_the_router_may_go_with_the_roles() -> None:
    world = await serving(spec())
    body = together()
    del body["spec"]["routing"]
    world.cluster.put(body)
    await world.settle()
    assert world.condition("Ready")["status"] == "True", world.condition("Ready")
    assert (PREFILL in world.cluster.objects, set(roles(world))) == (False, {"none"})


async def test_pods_that_cannot_exchange_the_cache_never_run_together() -> None:
    world = await serving(spec())
    before = {labels[KV_CACHE] for labels in labels_of(world)}
    bad, counts = watched(world), []
    world.cluster.listeners.append(lambda *_: counts.append(roles(world).count("decode")))
    world.cluster.put(spec(engine={"extraArgs": ["--kv-cache-dtype=fp8"]}))
    await world.settle()
    assert world.condition("Ready")["status"] == "True", world.condition("Ready")
    after = {labels[KV_CACHE] for labels in labels_of(world)}
    assert before.isdisjoint(after)
    assert roles(world).count("prefill") == world.status()["plan"]["prefill"]["replicas"]
    assert bad == []
    assert counts, "nothing was watched"


async def test_decode_pods_wait_until_the_old_prefill_pods_are_gone() -> None:
    world = await serving(spec())
    old = world.cluster.objects[DECODE]["spec"]["template"]
    world.pods_run = False
    world.cluster.put(spec(engine={"extraArgs": ["--kv-cache-dtype=fp8"]}))
    await world.settle()
    assert world.cluster.objects[PREFILL]["spec"]["replicas"] == 0
    assert world.cluster.objects[DECODE]["spec"]["template"] == old
    ready = world.condition("Ready")
    assert ready["status"] == "False", ready
    run_pods(world.cluster)
    await world.settle()
    assert world.cluster.objects[DECODE]["spec"]["template"] != old
    world.pods_run = True
    await world.settle()
    assert world.condition("Ready")["status"] == "True", world.condition("Ready")
    assert world.cluster.objects[PREFILL]["spec"]["replicas"] == 2


@pytest.mark.parametrize("target", [together(), spec(engine={"extraArgs": ["--kv-cache-dtype=fp8"]})])
async def test_a_crash_after_any_write_changes_nothing_of_the_end(target: dict[str, Any]) -> None:
    straight = await serving(spec())
    straight.cluster.listeners.clear()
    before = copy.deepcopy(straight.cluster)
    counting = Faults(straight.cluster)
    straight.start(counting)
    straight.cluster.put(target)
    await straight.settle()
    wanted = roles(straight)
    # Every third write: each start plans twice.
    for number in range(1, counting.count + 1, 3):
        world = World(cluster=copy.deepcopy(before))
        world.start(Faults(world.cluster, crash_after=number))
        bad = watched(world)
        world.cluster.put(target)
        with pytest.raises(CrashError):
            await world.settle()
        world.start()
        bad += watched(world)
        await world.settle()
        assert world.condition("Ready")["status"] == "True", (number, world.condition("Ready"))
        assert (roles(world), bad) == (wanted, []), number


async def test_one_role_without_gpus_is_a_reason() -> None:
    world = await serving(spec())
    # Two nodes go, and one with room for one pod comes.
    for index in range(2):
        world.cluster.remove("Node", "", f"h100-{index}")
    for kind, space, name in list(world.cluster.objects):
        if kind == "Pod":
            world.cluster.remove("Pod", space, name)
    world.cluster.put(node("small", gpus=1))
    await world.settle()
    ready = world.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Unschedulable")
    assert "(decode 1 of 1, prefill 0 of 2)" in ready["message"]
    assert "llama-prefill-" in ready["message"]
    assert world.condition("PlanReady")["status"] == "False"


async def test_prefill_pods_that_crash_are_named() -> None:
    world = await serving(spec())
    world.pods_run = False
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": "NIXL is not available"}}
    engine = {"name": "engine", "ready": False, "restartCount": 5, "state": waiting, "lastState": ended}
    conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}]
    status = {"conditions": conditions, "containerStatuses": [engine]}
    for name in ("llama-prefill-0", "llama-prefill-1"):
        world.cluster.edit("Pod", NAMESPACE, name, lambda pod: pod["status"].update(status))
    world.cluster.edit(*PREFILL, lambda live: live["status"].update(readyReplicas=0))
    await world.settle()
    ready, degraded = world.condition("Ready"), world.condition("Degraded")
    assert (ready["status"], ready["reason"]) == ("False", "PodsFailing")
    assert "(decode 1 of 1, prefill 0 of 2)" in ready["message"]
    assert degraded["status"] == "True"
    assert "llama-prefill-0: CrashLoopBackOff" in degraded["message"]
    assert "NIXL is not available" in degraded["message"]


async def test_a_refused_prefill_deployment_degrades() -> None:
    world = World()
    world.cluster.served.add("InferencePool")
    faults = Faults(world.cluster)
    world.start(faults)
    real = world.cluster.apply

    async def refuse(manifest: Any) -> Any:
        if manifest["metadata"]["name"] == "llama-prefill":
            raise ForbiddenError("admission webhook says no")
        return await real(manifest)

    world.cluster.apply = refuse  # type: ignore[method-assign]
    world.cluster.put(spec())
    await world.settle()
    degraded, ready = world.condition("Degraded"), world.condition("Ready")
    assert (degraded["status"], degraded["reason"]) == ("True", "ApplyRefused")
    assert "Deployment llama-prefill: admission webhook says no" in degraded["message"]
    assert ready["status"] == "False"
    assert "prefill 0 of 2" in ready["message"]
    # Decode pods process prompts themselves meanwhile.
    assert service(world)["energylens.dev/role"] == "decode"
    world.cluster.apply = real  # type: ignore[method-assign]
    world.clock.advance(120)
    await world.settle()
    assert world.condition("Ready")["status"] == "True", world.condition("Ready")


async def test_suspending_stops_both_roles_and_resuming_starts_both() -> None:
    world = await serving(spec())
    world.cluster.put(spec(suspend=True))
    await world.settle()
    assert roles(world) == []
    world.cluster.put(spec())
    await world.settle()
    assert roles(world) == ["decode", "prefill", "prefill"]


async def test_edits_of_the_prefill_deployment_are_put_right() -> None:
    world = await serving(spec())
    world.cluster.edit(*PREFILL, lambda live: live["spec"].update(replicas=7))
    await world.settle()
    assert world.cluster.objects[PREFILL]["spec"]["replicas"] == 2
    world.cluster.remove(*PREFILL)
    await world.settle()
    assert world.cluster.objects[PREFILL]["spec"]["replicas"] == 2
    assert world.condition("Ready")["status"] == "True"


async def test_a_window_has_the_energy_of_both_roles_and_the_tokens_of_decode() -> None:
    world = await serving(spec(validation={"warmupSeconds": 0, "windowSeconds": 120}))
    lab = Lab(world)
    await lab.run(300)
    plan_hash = world.status()["plan"]["hash"]
    found = lab.measuring.latest(KEY, plan_hash)
    assert found is not None
    assert (found.reason, found.power_watts) == ("Measured", 1500.0)
    # Each engine says 100 tokens a second; those of the two prefill pods reach no client.
    assert found.joules_per_output_token == 15.0
    assert found.mean_running == 12
    # Without all prefill pods there is nothing to measure.
    world.cluster.remove("Pod", NAMESPACE, "llama-prefill-0")
    await lab.run(15)
    assert lab.measuring.latest(KEY, plan_hash) is None


async def test_a_plan_that_is_only_shown_keeps_both_roles() -> None:
    world = await serving(spec())
    planning = {"disaggregation": "Follow", "mode": "Advisory"}
    world.cluster.put(spec(planning=planning, workload=LOAD | {"requestsPerSecond": 20}))
    await world.settle()
    assert roles(world) == ["decode", "prefill", "prefill"]
    assert world.condition("Ready")["status"] == "True", world.condition("Ready")


async def test_more_load_scales_each_role_by_the_plan() -> None:
    world = await serving(spec())
    before = world.status()["plan"]
    bad = watched(world)
    world.cluster.put(spec(workload=LOAD | {"requestsPerSecond": 40}))
    await world.settle()
    after = world.status()["plan"]
    assert after["prefill"]["replicas"] > before["prefill"]["replicas"]
    assert after["gpus"] > before["gpus"]
    assert world.condition("Ready")["status"] == "True", world.condition("Ready")
    assert roles(world).count("prefill") == after["prefill"]["replicas"]
    assert bad == []


SGLANG: dict[str, Any] = {"type": "SGLang"}


async def test_sglangs_pods_of_one_cache_only_run_together_and_stop_at_once() -> None:
    world = await serving(spec(engine=SGLANG))
    assert {"prefill", "decode"} == set(roles(world))
    before = {labels[KV_CACHE] for labels in labels_of(world)}
    assert len(before) == 1
    bad = watched(world)
    world.cluster.put(spec(engine={**SGLANG, "extraArgs": ["--kv-cache-dtype=fp8_e4m3"]}))
    await world.settle()
    assert world.condition("Ready")["status"] == "True", world.condition("Ready")
    assert before.isdisjoint({labels[KV_CACHE] for labels in labels_of(world)})
    assert bad == []
    # Nothing serves meanwhile, so that the replicas need not go one by one.
    body = world.cluster.objects[DECODE]["spec"]
    assert body["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": body["replicas"]}


async def test_sglangs_roles_are_not_adopted_where_that_would_interrupt_serving() -> None:
    world = await serving(together(engine=SGLANG))
    plan = world.status()["plan"]["hash"]
    followed: dict[str, Any] = {"disaggregation": "Follow", "replan": {"cooldownSeconds": 0}}
    world.cluster.put(spec(engine=SGLANG, planning=followed))
    await world.settle()
    planned = world.condition("PlanReady")
    assert (world.status()["plan"]["hash"], planned["reason"]) == (plan, "KeepingRunningPlan")
    assert "decode replicas of SGLang process no prompts" in planned["message"]
    assert set(roles(world)) == {"none"}
    for suspend in (True, False):
        world.cluster.put(spec(engine=SGLANG, planning=followed, suspend=suspend))
        await world.settle()
    assert set(roles(world)) == {"prefill", "decode"}
    assert world.condition("Ready")["status"] == "True", world.condition("Ready")
