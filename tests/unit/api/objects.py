"""Good objects that tests change, and the table of bad ones that the API server and the files' parser both refuse."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "energylens.dev/v1alpha1",
    "kind": "LLMDeployment",
    "metadata": {"name": "llama"},
    "spec": {
        "model": {"name": "meta-llama/Llama-3.1-70B-Instruct"},
        "workload": {"inputTokens": 512, "outputTokens": 128, "requestsPerSecond": 2},
    },
}
BUDGET: dict[str, Any] = {
    "apiVersion": "energylens.dev/v1alpha1",
    "kind": "EnergyBudget",
    "metadata": {"name": "team"},
    "spec": {"powerWatts": 20_000},
}
CLUSTER_BUDGET: dict[str, Any] = {
    "apiVersion": "energylens.dev/v1alpha1",
    "kind": "ClusterEnergyBudget",
    "metadata": {"name": "row-b"},
    "spec": {"powerWatts": 60_000},
}
BASES = {base["kind"]: base for base in (DEPLOYMENT, BUDGET, CLUSTER_BUDGET)}
FORECAST = {"forecastConfigMapRef": {"name": "grid"}, "gramsPerPeriod": 5000}
CLUSTER_FORECAST = {**FORECAST, "forecastConfigMapRef": {"name": "grid", "namespace": "platform"}}

CLASSES = (
    {"name": "chat", "sharePercent": 80, "inputTokens": 300, "outputTokens": 300, "outputTokensSCV": "500m"},
    {"sharePercent": 20, "inputTokens": 4000, "outputTokens": 150, "prefixCacheHitPercent": 50},
)


def changed(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``base`` with values set at paths such as ``spec.slo.itlMilliseconds``; ``...`` removes."""
    result = copy.deepcopy(dict(base))
    for path, value in changes.items():
        *parents, last = path.split(".")
        at = result
        for name in parents:
            at = at.setdefault(name, {})
        if value is ...:
            del at[last]
        else:
            at[last] = copy.deepcopy(value)
    return result


ROLES_ROUTING: dict[str, object] = {
    "inferencePool": {"endpointPicker": {"name": "llama-epp"}},
    "disaggregation": {"router": "LLMD", "sidecarImage": "llm-d/sidecar:v1"},
}
"""Routing to prefill and decode replicas."""


@dataclass(frozen=True)
class Bad:
    """A misoperation: what is set, the field that the message names, and words that it must hold."""

    changes: Mapping[str, Any]
    field: str
    said: tuple[str, ...]
    kind: str = "LLMDeployment"

    @property
    def object(self) -> dict[str, Any]:
        return changed(BASES[self.kind], self.changes)

    @property
    def id(self) -> str:
        words = {path: "absent" if value is ... else str(value)[:40] for path, value in self.changes.items()}
        return ",".join(f"{path.removeprefix('spec.')}={word}" for path, word in words.items())


def _budget(changes: Mapping[str, Any], field: str, *said: str) -> Bad:
    return Bad(changes, field, said, "EnergyBudget")


JOB = {"requests": 1000, "completeWithinSeconds": 3600}
BY = "2026-11-28T07:00:00Z"


def _job_start(**start: Any) -> dict[str, Any]:
    load = {"inputTokens": 1, "outputTokens": 1, "job": JOB | {"start": {"completeBy": BY} | start}}
    return {"spec.workload": load, "spec.slo": {}}


RULES = (
    Bad(
        _job_start(),
        "spec.workload.job.start",
        ("neither forecastConfigMapRef nor tariffConfigMapRef is set", "set exactly one"),
    ),
    Bad(
        _job_start(forecastConfigMapRef={"name": "a"}, tariffConfigMapRef={"name": "b"}),
        "spec.workload.job.start",
        ("forecastConfigMapRef and tariffConfigMapRef are both set", "set exactly one"),
    ),
    Bad(
        _job_start(forecastConfigMapRef={"name": "a"}, notBefore="2026-11-28T08:00:00+01:00"),
        "spec.workload.job.start",
        (f"notBefore (2026-11-28T08:00:00+01:00) must be earlier than completeBy ({BY})",),
    ),
    Bad({"spec.workload.concurrency": 8}, "spec.workload", ("requestsPerSecond (2)", "concurrency (8)", "exactly one")),
    Bad({"spec.workload.requestsPerSecond": ...}, "spec.workload", ("neither requestsPerSecond nor", "exactly one")),
    Bad({"spec.workload.job": JOB}, "spec.workload", ("job and requestsPerSecond (2)", "exactly one of the three")),
    Bad(
        {"spec.workload": {"inputTokens": 1, "outputTokens": 1, "concurrency": 4, "job": JOB}},
        "spec.workload",
        ("job and concurrency (4)", "exactly one of the three"),
    ),
    Bad(
        {"spec.workload": {"inputTokens": 1, "outputTokens": 1, "job": JOB}, "spec.slo": {"ttftMilliseconds": 500}},
        "spec",
        ("slo.ttftMilliseconds cannot be combined with workload.job",),
    ),
    Bad(
        {
            "spec.workload": {"inputTokens": 1, "outputTokens": 1, "job": JOB},
            "spec.slo": {},
            "spec.rollout": {"verify": "Measured"},
        },
        "spec",
        ("rollout.verify Measured cannot be combined with workload.job",),
    ),
    Bad(
        {
            "spec.workload": {"inputTokens": 1, "outputTokens": 1, "job": JOB},
            "spec.slo": {},
            "spec.scaling": {"mode": "External"},
            "spec.replicas": 2,
        },
        "spec",
        ("scaling.mode External cannot be combined with workload.job",),
    ),
    Bad(
        {
            "spec.workload": {"inputTokens": 1, "outputTokens": 1, "job": JOB},
            "spec.slo": {},
            "spec.planning.followLoad": "Auto",
        },
        "spec",
        ("planning.followLoad Auto needs workload.requestsPerSecond, and workload has a job",),
    ),
    Bad({"spec.workload.requestsPerSecond": 0}, "spec.workload.requestsPerSecond", ("0", "greater than 0")),
    Bad({"spec.workload.requestsPerSecond": "-500m"}, "spec.workload.requestsPerSecond", ("-500m", "greater than 0")),
    Bad({"spec.workload.arrivalSCV": "0.5"}, "spec.workload.arrivalSCV", ("0.5", "from 1 (Poisson arrivals) to 100")),
    Bad({"spec.workload.arrivalSCV": 101}, "spec.workload.arrivalSCV", ("101", "from 1 (Poisson arrivals) to 100")),
    Bad(
        {"spec.workload": {"inputTokens": 1, "outputTokens": 1, "concurrency": 4, "arrivalSCV": 4}},
        "spec.workload",
        ("arrivalSCV (4)", "requestsPerSecond", "leave arrivalSCV out"),
    ),
    Bad({"spec.workload.inputTokens": ...}, "spec.workload", ("inputTokens not set", "outputTokens, or classes")),
    Bad({"spec.workload.outputTokens": None}, "spec.workload", ("outputTokens not set", "outputTokens, or classes")),
    Bad(
        {"spec.workload": {"requestsPerSecond": 1}},
        "spec.workload",
        ("inputTokens not set; set inputTokens and outputTokens, or classes",),
    ),
    Bad(
        {"spec.workload.classes": CLASSES},
        "spec.workload",
        ("classes and inputTokens (512) are both set", "each class has its own"),
    ),
    Bad(
        {"spec.workload": {"requestsPerSecond": 1, "classes": CLASSES, "prefixCacheHitPercent": 30}},
        "spec.workload",
        ("classes and prefixCacheHitPercent (30) are both set",),
    ),
    Bad(
        {"spec.workload": {"requestsPerSecond": 1, "classes": CLASSES, "outputTokensSCV": "500m"}},
        "spec.workload",
        ("classes and outputTokensSCV (500m) are both set",),
    ),
    Bad(
        {"spec.workload": {"requestsPerSecond": 1, "classes": [CLASSES[0], {**CLASSES[1], "sharePercent": 30}]}},
        "spec.workload",
        ("sharePercent of classes add up to 110", "must add up to 100"),
    ),
    Bad(
        {"spec.workload": {"requestsPerSecond": 1, "classes": [CLASSES[0], {**CLASSES[1], "name": "chat"}]}},
        "spec.workload",
        ("two classes have the same name", "a name of its own"),
    ),
    Bad({"spec.workload.outputTokensSCV": 101}, "spec.workload.outputTokensSCV", ("101", "from 0 (all of one length)")),
    Bad({"spec.slo.joulesPerOutputToken": "0.0"}, "spec.slo.joulesPerOutputToken", ("0.0", "greater than 0")),
    Bad(
        {"spec.hardware": {"maxGPUs": 4, "maxGPUsPerReplica": 8}},
        "spec.hardware",
        ("maxGPUsPerReplica (8)", "maxGPUs (4)", "set maxGPUsPerReplica to 4 or less"),
    ),
    Bad(
        {"spec.workload.speculative": {"method": "DraftModel", "draftTokens": 3, "acceptancePercent": 50}},
        "spec.workload.speculative",
        ("method DraftModel needs draftModelMillionParameters",),
    ),
    Bad(
        {
            "spec.workload.speculative": {
                "method": "EAGLE",
                "draftTokens": 3,
                "acceptancePercent": 50,
                "draftModelMillionParameters": 500,
            }
        },
        "spec.workload.speculative",
        ("draftModelMillionParameters (500)", "method is EAGLE; leave draftModelMillionParameters out"),
    ),
    Bad({"spec.energy.powerCap": {"mode": "Fixed"}}, "spec.energy.powerCap", ("mode Fixed needs wattsPerGPU",)),
    Bad(
        {"spec.energy.powerCap": {"wattsPerGPU": 400}},
        "spec.energy.powerCap",
        ("wattsPerGPU (400)", "mode is Never", "set mode to Fixed"),
    ),
    Bad(
        {"spec.energy.powerCap": {"mode": "Plan", "wattsPerGPU": 400}},
        "spec.energy.powerCap",
        ("wattsPerGPU (400)", "mode is Plan"),
    ),
    Bad({"spec.energy.budget": {"period": "Day"}}, "spec.energy.budget", ("powerWatts, energyWattHours or both",)),
    Bad(
        {
            "spec.planning.overrides": {"tensorParallel": 8, "pipelineParallel": 2},
            "spec.hardware.maxGPUsPerReplica": 8,
        },
        "spec",
        ("tensorParallel 8 x pipelineParallel 2 x dataParallel 1 = 16", "maxGPUsPerReplica (8)"),
    ),
    Bad(
        {"spec.planning.overrides": {"tensorParallel": 4, "replicas": 3}, "spec.hardware.maxGPUs": 8},
        "spec",
        ("4 GPUs per replica x replicas 3 = 12", "maxGPUs (8)"),
    ),
    Bad(
        {"spec.planning.followLengths": "Auto"},
        "spec.planning",
        ("followLengths Auto needs followLoad Auto", "followLengths to Never"),
    ),
    Bad(
        {"spec.planning.followLoad": "Auto", "spec.workload": {"inputTokens": 1, "outputTokens": 1, "concurrency": 4}},
        "spec",
        ("planning.followLoad Auto", "workload.requestsPerSecond", "concurrency (4)", "Never"),
    ),
    Bad(
        {"spec.workload.profile": {"hours": [{"fromHour": 22, "toHour": 6, "requestsPerSecond": 5}]}},
        "spec.workload.profile.hours[0]",
        ("fromHour (22)", "toHour (6)", "midnight as two entries"),
    ),
    Bad(
        {"spec.workload.profile": {"timeZone": "Mars/Base", "hours": [{"requestsPerSecond": 5}]}},
        "spec.workload.profile",
        ("Mars/Base", "IANA time zone", "Europe/Berlin"),
    ),
    Bad(
        {
            "spec.workload": {
                "inputTokens": 1,
                "outputTokens": 1,
                "concurrency": 4,
                "profile": {"hours": [{"requestsPerSecond": 5}]},
            }
        },
        "spec.workload",
        ("profile needs requestsPerSecond",),
    ),
    Bad(
        {"spec.workload.profile": {"timeZone": "UTC"}},
        "spec.workload.profile",
        ("none of hours, hoursConfigMapRef and learned is set; set exactly one",),
    ),
    Bad(
        {"spec.workload.profile": {"hours": [{"requestsPerSecond": 5}], "hoursConfigMapRef": {"name": "rates"}}},
        "spec.workload.profile",
        ("hours and hoursConfigMapRef are both set; set exactly one of hours, hoursConfigMapRef and learned",),
    ),
    Bad(
        {"spec.workload.profile": {"learned": {}, "hoursConfigMapRef": {"name": "rates"}}},
        "spec.workload.profile",
        ("hoursConfigMapRef and learned are both set; set exactly one of hours, hoursConfigMapRef and learned",),
    ),
    Bad(
        {"spec.workload.profile": {"learned": {}}, "spec.validation.source": "None"},
        "spec",
        ("workload.profile.learned needs measured windows, and validation.source is None",),
    ),
    *(
        Bad(
            {"spec.workload.profile": {"hours": [{"requestsPerSecond": 5}]}, path: value},
            "spec",
            (name, "cannot be combined with workload.profile"),
        )
        for path, value, name in (
            ("spec.planning.followLoad", "Auto", "planning.followLoad Auto"),
            ("spec.planning.disaggregation", "Compare", "planning.disaggregation Compare or Follow"),
            ("spec.rollout.verify", "Measured", "rollout.verify Measured"),
            ("spec.rollout.rollbackOn", ["HigherEnergy"], "rollout.rollbackOn"),
            ("spec.validation.onDrift", "Rollback", "validation.onDrift Rollback"),
        )
    ),
    Bad(
        {"spec.scaling": {"maxReplicas": 4}},
        "spec",
        ("scaling.mode Energy needs workload.profile", "overrides.replicas", "External or Fixed"),
    ),
    Bad({"spec.replicas": 3}, "spec", ("replicas (3) needs scaling.mode External or Fixed", "the plan decides")),
    Bad({"spec.scaling": {"mode": "External"}}, "spec", ("scaling.mode External needs replicas",)),
    Bad(
        {"spec.scaling": {"mode": "Fixed", "minReplicas": 0}, "spec.replicas": 1},
        "spec.scaling",
        (
            "minReplicas (0) needs mode External, and mode is Fixed; set minReplicas to 1 or more; "
            "suspend stops all replicas",
        ),
    ),
    Bad(
        {"spec.scaling": {"mode": "External"}, "spec.replicas": 0},
        "spec",
        ("replicas (0) must be at least scaling.minReplicas (1)",),
    ),
    Bad(
        {"spec.scaling": {"mode": "External", "minReplicas": 2}, "spec.replicas": 1},
        "spec",
        ("replicas (1) must be at least scaling.minReplicas (2)",),
    ),
    Bad(
        {"spec.scaling": {"mode": "Fixed", "maxReplicas": 2}, "spec.replicas": 3},
        "spec",
        ("replicas (3) must be at most scaling.maxReplicas (2)",),
    ),
    Bad(
        {"spec.scaling.mode": "Fixed", "spec.replicas": 3, "spec.planning.overrides": {"replicas": 2}},
        "spec",
        ("replicas (3) and planning.overrides.replicas (2) are both set",),
    ),
    Bad(
        {
            "spec.scaling.mode": "External",
            "spec.replicas": 3,
            "spec.workload.profile": {"hours": [{"requestsPerSecond": 5}]},
        },
        "spec",
        ("workload.profile needs scaling.mode Energy", "scaling.mode is External"),
    ),
    Bad(
        {"spec.scaling.mode": "External", "spec.replicas": 3, "spec.planning.followLoad": "Auto"},
        "spec",
        ("planning.followLoad Auto", "cannot be combined with scaling.mode External"),
    ),
    Bad(
        {
            "spec.workload.profile": {"hours": [{"requestsPerSecond": 5}]},
            "spec.scaling": {"minReplicas": 5, "maxReplicas": 4},
        },
        "spec.scaling",
        ("minReplicas (5)", "maxReplicas (4)"),
    ),
    Bad(
        {"spec.rollout.verify": "Measured", "spec.validation.source": "None"},
        "spec",
        ("rollout.verify Measured", "validation.source is None", "Never", "DCGMExporter"),
    ),
    Bad(
        {
            "spec.planning.disaggregation": "Compare",
            "spec.workload": {"inputTokens": 1, "outputTokens": 1, "concurrency": 4},
        },
        "spec",
        ("planning.disaggregation Compare", "workload.requestsPerSecond", "concurrency (4)", "Never"),
    ),
    Bad(
        {"spec.planning.disaggregation": "Follow"},
        "spec",
        ("planning.disaggregation Follow needs routing.disaggregation", "set disaggregation to Compare"),
    ),
    Bad(
        {"spec.routing": {"disaggregation": {"router": "LLMD", "sidecarImage": "llm-d/sidecar:v1"}}},
        "spec",
        ("routing.disaggregation with router LLMD needs routing.inferencePool",),
    ),
    *(
        Bad(
            {"spec.planning.disaggregation": "Follow", "spec.routing": ROLES_ROUTING, path: value},
            "spec",
            (name, "cannot be combined with planning.disaggregation Follow"),
        )
        for path, value, name in (
            ("spec.rollout.verify", "Measured", "rollout.verify Measured"),
            ("spec.rollout.rollbackOn", ["HigherEnergy"], "rollout.rollbackOn"),
            ("spec.validation.onDrift", "Recalibrate", "validation.onDrift Recalibrate"),
            ("spec.validation.onDrift", "Rollback", "validation.onDrift Rollback"),
        )
    ),
    Bad(
        {
            "spec.planning.disaggregation": "Follow",
            "spec.routing": ROLES_ROUTING,
            "spec.scaling.mode": "Fixed",
            "spec.replicas": 3,
        },
        "spec",
        ("scaling.mode Fixed", "cannot be combined with planning.disaggregation Follow"),
    ),
    Bad(
        {"spec.planning.overrides": {"expertParallel": 16, "tensorParallel": 4, "dataParallel": 2}},
        "spec.planning.overrides",
        ("expertParallel (16)", "tensorParallel (4) x dataParallel (2) = 8", "8 or less"),
    ),
    Bad(
        {"spec.planning.overrides": {"maxBatchSize": 256, "maxBatchedTokens": 128}},
        "spec.planning.overrides",
        ("maxBatchSize (256)", "maxBatchedTokens (128)", "256 or more"),
    ),
    Bad(
        {"spec.planning": {"overrides": {"replicas": 2}, "spareReplicas": 2}},
        "spec.planning",
        ("overrides.replicas (2)", "spareReplicas (2)", "3 or more"),
    ),
    Bad({"spec.model.cache": {}}, "spec.model.cache", ("neither persistentVolumeClaim nor hostPath",)),
    Bad(
        {"spec.model.cache": {"persistentVolumeClaim": "weights", "hostPath": "/data"}},
        "spec.model.cache",
        ("'weights'", "'/data'", "exactly one"),
    ),
    Bad({"spec.model.source": {}}, "spec.model.source", ("0 of hub, persistentVolumeClaim and image", "exactly one")),
    Bad(
        {"spec.model.source": {"hub": {}, "image": {"reference": "models/llama:1"}}},
        "spec.model.source",
        ("2 of hub, persistentVolumeClaim and image", "exactly one"),
    ),
    Bad(
        {"spec.model.source": {"persistentVolumeClaim": {"claimName": "weights", "path": "llama/../../etc"}}},
        "spec.model.source.persistentVolumeClaim",
        ("'llama/../../etc'", "'..'"),
    ),
    Bad(
        {"spec.model.revision": "main", "spec.model.source": {"image": {"reference": "models/llama:1"}}},
        "spec.model",
        ("revision 'main'", "leave revision out"),
    ),
    Bad({"spec.model.source": {"hub": {"offline": True}}}, "spec.model", ("source.hub.offline needs cache",)),
    Bad(
        {"spec.hardware.tolerations": [{"key": "gpu", "operator": "Exists", "value": "yes"}]},
        "spec.hardware.tolerations[0]",
        ("'yes'", "set operator to Equal"),
    ),
    Bad(
        {"spec.hardware.tolerations": [{"value": "yes"}]},
        "spec.hardware.tolerations[0]",
        ("needs key", "set operator to Exists"),
    ),
    Bad(
        {"spec.hardware.tolerations": [{"operator": "Exists", "tolerationSeconds": 5}]},
        "spec.hardware.tolerations[0]",
        ("tolerationSeconds (5)", "NoExecute"),
    ),
    Bad({"metadata.name": "l" * 53}, "", ("metadata.name", "(53 characters)", "at most 52")),
    Bad({"metadata.name": "1lama"}, "", ("metadata.name '1lama'", "start with a lower-case letter")),
    Bad({"metadata.name": "llama.v2"}, "", ("metadata.name 'llama.v2'", "hold only a-z, 0-9 and -")),
    _budget({"spec.powerWatts": ...}, "spec", "powerWatts, energyWattHours or carbon"),
    _budget({"spec.carbon": CLUSTER_FORECAST}, "spec", "namespace 'platform'", "reads its own namespace"),
    Bad({"spec.carbon": FORECAST}, "spec", ("'grid'", "needs a namespace"), "ClusterEnergyBudget"),
    Bad({"spec.powerWatts": ...}, "spec", ("powerWatts, energyWattHours or carbon",), "ClusterEnergyBudget"),
    Bad({"spec.timeZone": "Mars/Phobos"}, "spec", ("Mars/Phobos", "IANA time zone"), "ClusterEnergyBudget"),
    _budget({"spec.timeZone": "Mars/Phobos"}, "spec", "Mars/Phobos", "IANA time zone", "Europe/Berlin"),
    _budget({"spec.timeZone": "Local"}, "spec", "'Local'", "IANA time zone"),
    _budget(
        {"spec.selector.matchExpressions": [{"key": "team", "operator": "In"}]},
        "spec.selector.matchExpressions[0]",
        "In",
        "'team'",
        "needs values",
    ),
    _budget(
        {"spec.selector.matchExpressions": [{"key": "team", "operator": "Exists", "values": ["a"]}]},
        "spec.selector.matchExpressions[0]",
        "Exists",
        "'team'",
        "no values",
    ),
)
"""Refused by a rule, with the same words on both sides."""

SCHEMA = (
    Bad({"spec.slo.itlMilliseconds": -5}, "spec.slo.itlMilliseconds", ("-5", "1")),
    Bad({"spec.slo.ttftMilliseconds": 0}, "spec.slo.ttftMilliseconds", ("0", "1")),
    Bad({"spec.slo.percentile": "P90"}, "spec.slo.percentile", ("P90", "P50", "P95", "P99")),
    Bad({"spec.workload.requestsPerSecond": 0.5}, "spec.workload.requestsPerSecond", ("number",)),
    Bad({"spec.workload.requestsPerSecond": "fast"}, "spec.workload.requestsPerSecond", ("fast",)),
    Bad({"spec.workload": {"requestsPerSecond": 1, "classes": []}}, "spec.workload.classes", ("1",)),
    Bad(
        {"spec.workload": {"requestsPerSecond": 1, "classes": [{"inputTokens": 1, "outputTokens": 1}]}},
        "spec.workload.classes[0].sharePercent",
        ("equired",),
    ),
    Bad({"spec.workload.inputTokens": "512"}, "spec.workload.inputTokens", ()),
    Bad({"spec.workload.inputTokens": 20_000_000}, "spec.workload.inputTokens", ("20000000", "10000000")),
    Bad({"spec.workload.concurrency": True}, "spec.workload.concurrency", ()),
    Bad({"spec.model.name": ""}, "spec.model.name", ("1",)),
    Bad({"spec.model.name": "meta llama"}, "spec.model.name", ("meta llama",)),
    Bad({"spec.model": ...}, "spec.model", ("equired",)),
    Bad({"spec.engine.type": "vLLM"}, "spec.engine.type", ("vLLM", "VLLM", "SGLang")),
    Bad({"spec.engine.env": [{"name": "A"}, {"name": "A"}]}, "spec.engine.env", ("A",)),
    Bad({"spec.hardware.gpuProducts": ["H100", "H100"]}, "spec.hardware.gpuProducts", ("H100",)),
    Bad({"spec.hardware.maxGPUs": 0}, "spec.hardware.maxGPUs", ("0", "1")),
    Bad({"spec.hardware.nodeSelector": {"zone": "a b"}}, "spec.hardware.nodeSelector.zone", ("a b",)),
    Bad({"spec.planning.overrides.tensorParallel": 0}, "spec.planning.overrides.tensorParallel", ("0", "1")),
    Bad({"spec.planning.approvedPlanHash": "no hash!"}, "spec.planning.approvedPlanHash", ("no hash!",)),
    Bad({"spec.validation.windowSeconds": 1}, "spec.validation.windowSeconds", ("1", "10")),
    Bad({"spec.validation.windowSeconds": 7201}, "spec.validation.windowSeconds", ("7201", "7200")),
    Bad({"spec.validation.tolerancePercent": 101}, "spec.validation.tolerancePercent", ("101", "100")),
    Bad({"spec.rollout.rollbackOn": ["Rain"]}, "spec.rollout.rollbackOn[0]", ("Rain", "SLOViolation")),
    Bad({"spec.model.cache": {"hostPath": "data"}}, "spec.model.cache.hostPath", ("data",)),
    Bad(
        {"spec.model.source": {"hub": {"endpoint": "hub.example.com"}}},
        "spec.model.source.hub.endpoint",
        ("hub.example.com",),
    ),
    Bad(
        {"spec.model.source": {"image": {"reference": "models/llama:1", "path": "/model"}}},
        "spec.model.source.image.path",
        ("/model",),
    ),
    Bad({"spec.suspend": "yes"}, "spec.suspend", ()),
    _budget({"spec.powerWatts": 0}, "spec.powerWatts", "0", "1"),
    _budget({"spec.timeZone": "+02:00"}, "spec.timeZone", "+02:00"),
    _budget({"spec.period": "Year"}, "spec.period", "Year", "Month"),
    _budget({"spec.action": "Evict"}, "spec.action", "Evict", "Shed"),
    _budget({"spec.shed.hysteresisPercent": 91}, "spec.shed.hysteresisPercent", "91", "90"),
    _budget({"spec.carbon": {**FORECAST, "gramsPerPeriod": 0}}, "spec.carbon.gramsPerPeriod", "0", "1"),
    Bad({"spec.nodeSelector": {"row": "b c"}}, "spec.nodeSelector.row", ("b c",), "ClusterEnergyBudget"),
    Bad({"spec.energy.minReplicas": 0}, "spec.energy.minReplicas", ("0", "1")),
    Bad({"spec.energy.priority": 2_000_000}, "spec.energy.priority", ("2000000", "1000000")),
)
"""Refused by types, bounds and enums; each side has its own words for these."""

GOOD: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("LLMDeployment", {}),
    ("LLMDeployment", {"metadata.name": "l" * 52}),
    ("LLMDeployment", {"spec.workload.requestsPerSecond": "500m"}),
    ("LLMDeployment", {"spec.workload.requestsPerSecond": "0.5"}),
    ("LLMDeployment", {"spec.workload.requestsPerSecond": "1e3"}),
    ("LLMDeployment", {"spec.workload.requestsPerSecond": None, "spec.workload.concurrency": 64}),
    ("LLMDeployment", {"spec.slo": {"itlMilliseconds": 40, "ttftMilliseconds": 2000, "joulesPerOutputToken": "400m"}}),
    ("LLMDeployment", {"spec.slo": None, "spec.suspend": None}),
    ("LLMDeployment", {"spec.hardware": {"maxGPUs": 8, "maxGPUsPerReplica": 8, "gpuProducts": ["NVIDIA-H200"]}}),
    ("LLMDeployment", {"spec.hardware.tolerations": [{"operator": "Exists"}, {"key": "gpu", "value": "yes"}]}),
    ("LLMDeployment", {"spec.energy.powerCap": {"mode": "Fixed", "wattsPerGPU": 400}}),
    ("LLMDeployment", {"spec.workload.prefixCacheHitPercent": 100}),
    (
        "LLMDeployment",
        {"spec.scaling": {"mode": "External", "minReplicas": 1, "maxReplicas": 4}, "spec.replicas": 4},
    ),
    ("LLMDeployment", {"spec.scaling": {"mode": "External", "minReplicas": 0}, "spec.replicas": 0}),
    ("LLMDeployment", {"spec.scaling": {"mode": "Fixed"}, "spec.replicas": 2, "spec.planning.followLoad": "Auto"}),
    (
        "LLMDeployment",
        {
            "spec.workload.profile": {
                "timeZone": "Europe/Berlin",
                "hours": [
                    {"days": ["Mon", "Fri"], "fromHour": 8, "toHour": 18, "requestsPerSecond": "20"},
                    {"fromHour": 22, "requestsPerSecond": "500m"},
                ],
            },
            "spec.scaling": {"minReplicas": 1, "maxReplicas": 4, "startSeconds": 90, "startJoules": 20000},
        },
    ),
    ("LLMDeployment", {"spec.workload.profile": {"hoursConfigMapRef": {"name": "rates", "key": "week"}}}),
    ("LLMDeployment", {"spec.workload.profile": {"learned": {"minCoveragePercent": 90, "earlierWeeksPercent": 0}}}),
    ("LLMDeployment", {"spec.workload.arrivalSCV": 4}),
    ("LLMDeployment", {"spec.workload": {"requestsPerSecond": 1, "classes": CLASSES}}),
    ("LLMDeployment", {"spec.workload": {"concurrency": 8, "classes": [{**CLASSES[0], "sharePercent": 100}]}}),
    (
        "LLMDeployment",
        {
            "spec.workload": {
                "concurrency": 8,
                "classes": [{"sharePercent": n, "inputTokens": 5, "outputTokens": 5} for n in (93, *[1] * 7)],
            }
        },
    ),
    ("LLMDeployment", {"spec.workload.inputTokensSCV": 0, "spec.workload.outputTokensSCV": "0.5"}),
    ("LLMDeployment", {"spec.workload.arrivalSCV": "1.5"}),
    ("LLMDeployment", {"spec.workload.speculative": {"draftTokens": 3, "acceptancePercent": 0}}),
    (
        "LLMDeployment",
        {
            "spec.workload.speculative": {
                "method": "DraftModel",
                "draftTokens": 64,
                "acceptancePercent": 100,
                "draftModelMillionParameters": 1,
            }
        },
    ),
    ("LLMDeployment", {"spec.energy.powerCap": {"mode": "Plan"}}),
    ("LLMDeployment", {"spec.energy.budget": {"energyWattHours": 1000}}),
    ("LLMDeployment", {"spec.planning.overrides": {"tensorParallel": 8}, "spec.hardware.maxGPUsPerReplica": 8}),
    ("LLMDeployment", {"spec.planning.overrides": {"expertParallel": 8, "tensorParallel": 1, "dataParallel": 8}}),
    ("LLMDeployment", {"spec.planning.overrides": {"maxBatchSize": 64, "maxBatchedTokens": 0}}),
    ("LLMDeployment", {"spec.planning.overrides": {"maxBatchSize": 64, "maxBatchedTokens": 64}}),
    (
        "LLMDeployment",
        {"spec.workload": {"inputTokens": 1, "outputTokens": 1, "job": JOB}, "spec.slo": {"itlMilliseconds": 100}},
    ),
    ("LLMDeployment", _job_start(tariffConfigMapRef={"name": "a"}, notBefore="2026-11-28T07:59:59+01:00")),
    ("LLMDeployment", _job_start(forecastConfigMapRef={"name": "a", "key": "b.csv"})),
    ("LLMDeployment", {"spec.model.cache": {"hostPath": "/data"}}),
    ("LLMDeployment", {"spec.model.source": {"hub": {"endpoint": "http://10.0.0.1:8080/hf", "caRef": {"name": "ca"}}}}),
    (
        "LLMDeployment",
        {"spec.model.source": {"hub": {"offline": True}}, "spec.model.cache": {"persistentVolumeClaim": "models"}},
    ),
    ("LLMDeployment", {"spec.model.source": {"persistentVolumeClaim": {"claimName": "weights", "path": "a/b-c.d"}}}),
    ("LLMDeployment", {"spec.model.source": {"image": {"reference": "models/llama@sha256:0a", "pullPolicy": "Never"}}}),
    ("LLMDeployment", {"spec.model": {"name": "openai/gpt-oss-120b", "tokenSecretRef": {"name": "hub"}}}),
    ("LLMDeployment", {"spec.podTemplate": {"spec": {"priorityClassName": "high", "anything": {"goes": [1]}}}}),
    ("EnergyBudget", {}),
    ("EnergyBudget", {"spec": {"energyWattHours": 5000, "timeZone": "America/Argentina/Ushuaia", "period": "Day"}}),
    ("EnergyBudget", {"spec.selector.matchExpressions": [{"key": "team", "operator": "In", "values": ["a"]}]}),
    ("EnergyBudget", {"spec.selector.matchLabels": {"team": "a"}}),
    ("EnergyBudget", {"spec": {"carbon": FORECAST, "action": "Shed"}}),
    ("EnergyBudget", {"spec.shed": {"hysteresisPercent": 0, "cooldownSeconds": 0}}),
    ("ClusterEnergyBudget", {}),
    ("ClusterEnergyBudget", {"spec.carbon": CLUSTER_FORECAST}),
    ("ClusterEnergyBudget", {"spec.namespaceSelector.matchLabels": {"team": "a"}, "spec.nodeSelector": {"row": "b"}}),
    ("LLMDeployment", {"spec.energy": {"priority": -5, "minReplicas": 2}}),
)
"""Accepted by both sides: what stands at the edge of a rule or a bound."""


def good_object(kind: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    return changed(BASES[kind], changes)
