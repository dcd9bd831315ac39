"""Draws clusters as nodes have them, budgets, and both beside specs."""

from __future__ import annotations

from hypothesis import strategies as st
from tests.fuzz.strategies import NAMESPACE, PRODUCTS, USUAL_PRODUCTS, Draw, Object, Values, deployments, given


@st.composite
def pools(draw: Draw) -> Object:
    """Draw an inventory as people write it by hand."""
    return {"nodes": draw(st.lists(_pool(draw(st.booleans())), min_size=1, max_size=3))}


@st.composite
def _pool(draw: Draw, calm: bool) -> Object:
    v = Values(draw, calm)
    gpus = v.one_of(8, 1, 2, 4, 16, 7, 3)
    return given(
        product=draw(st.sampled_from(USUAL_PRODUCTS) | st.sampled_from(PRODUCTS)),
        gpus=gpus,
        count=v.one_of(1, 2, 3, 6),
        used=draw(st.integers(0, gpus)) if v.is_set() else None,
        labels={"pool": "a"} if v.is_set() else None,
        taints=[{"key": "team", "value": "a", "effect": "NoSchedule"}] if v.is_set() else None,
    )


@st.composite
def node_lists(draw: Draw) -> Object:
    """Draw nodes and pods as `kubectl get -o json` prints them, with holes."""
    v = Values(draw, draw(st.booleans()))
    ready = {"type": "Ready", "status": "True"}
    labels_of_others = ({"pool": "a"}, {"nvidia.com/gpu.count": "8"}, {"nvidia.com/gpu.replicas": "x"})
    items: list[Object] = []
    for number in range(draw(st.integers(1, 5))):
        name, gpus = f"n{number}", v.one_of(8, 1, 2, 4, 7, 0)
        product = v.one_of("NVIDIA-GB999", "NVIDIA-A10G-SHARED", "") if v.is_set() and v.is_set() else None
        labels = dict(v.one_of(*labels_of_others)) if v.is_set() else {}
        product = product if product is not None else v.one_of(*USUAL_PRODUCTS)
        if product:
            labels["nvidia.com/gpu.product"] = product
        status = {"allocatable": {"cpu": "8", "nvidia.com/gpu": str(gpus)}, "conditions": [ready]}
        if v.is_set() and v.is_set():
            status = v.one_of({}, {**status, "conditions": [{**ready, "status": "Unknown"}]}, {"conditions": [ready]})
        items.append(
            {
                "kind": "Node",
                "metadata": {"name": name, "labels": labels},
                "spec": given(
                    unschedulable=True if v.is_set() and v.is_set() else None,
                    taints=[{"key": "team", "effect": "NoSchedule"}] if v.is_set() else None,
                ),
                "status": status,
            }
        )
        if gpus and v.is_set():
            items.append(_pod(f"p{number}", name, draw(st.integers(1, gpus)), draw(st.booleans())))
    return {"kind": "List", "apiVersion": "v1", "items": items}


def _pod(name: str, node: str, gpus: int, ours: bool) -> Object:
    labels = {"energylens.dev/llmdeployment": "a"} if ours else {}
    container = {"name": "c", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels, "uid": name},
        "spec": {"nodeName": node, "containers": [container]},
        "status": {"phase": "Running"},
    }


@st.composite
def budgets(draw: Draw) -> Object:
    """Draw an EnergyBudget or a ClusterEnergyBudget."""
    v = Values(draw, draw(st.booleans()))
    kind = v.one_of("EnergyBudget", "ClusterEnergyBudget")
    spec = given(
        powerWatts=v.whole(1, 10**9, 1000, 3000, 50_000),
        energyWattHours=v.whole(1, 10**12, 10**6) if v.is_set() else None,
        period=v.one_of("Hour", "Day", "Week", "Month"),
        action=v.one_of("Deny", "Report", "Shed"),
        selector={"matchLabels": {"no": "body"}} if v.is_set() else None,
    )
    namespace = {"namespace": NAMESPACE} if kind == "EnergyBudget" else {}
    return {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "cap", **namespace},
        "spec": spec,
    }


@st.composite
def worlds(draw: Draw) -> tuple[list[Object], Object]:
    """Draw the objects of `-f`, and the document of `--inventory`."""
    names = draw(st.sampled_from([["a"], ["a"], ["a"], ["a", "b"]]))
    asked = [draw(deployments(name)) for name in names]
    budget = draw(st.none() | budgets())
    return [*asked, *([budget] if budget else [])], draw(pools() | pools() | node_lists())
