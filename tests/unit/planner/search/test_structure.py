"""Layouts that no replica can have, against the same rules for one layout at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tests.unit.planner.conftest import H100, ArithmeticPredictor
from tests.unit.predictor.models import layouts

from energylens.planner.engines import EngineSettings
from energylens.planner.search.space import ProductSpace
from energylens.planner.search.structure import structure
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import GpuSpec, Workload

REQUEST = Workload(300, 200)
EXPERTS = "expert parallel must be 1 or tensor parallel x data parallel"
SPREAD = "a data-parallel rank of a replica over several nodes must fit into one of them"
CAP = f"the power limit of {H100} can be set from 200 to 700 W"


def test_what_no_replica_can_have_is_named(models: dict[str, ModelSpec], gpus: dict[str, GpuSpec]) -> None:
    cases = [
        (tp, pp, ep, dp, nodes, cap)
        for tp, pp, dp in ((1, 1, 1), (2, 1, 1), (2, 1, 2), (2, 2, 2), (1, 2, 4), (4, 2, 1), (1, 3, 2), (2, 1, 4))
        for ep in (1, 2, 4, 8)
        for nodes in (1, 2, 4)
        for cap in (np.nan, 199.0, 200.0, 700.0, 701.0)
        if (tp * pp * dp) % nodes == 0 and tp * pp * dp >= nodes
    ]
    tried = layouts(*(case[:4] for case in cases), batch=16)
    tried = replace(tried, power_cap_watts=np.asarray([case[5] for case in cases]))
    ones = np.ones(len(cases), dtype=np.int64)
    space = ProductSpace(gpus[H100], tried, np.asarray([case[4] for case in cases]), ones, ones)
    supported, reason, fits = structure(
        space, models["moe"], ArithmeticPredictor(), REQUEST, REQUEST, EngineSettings("VLLM")
    )
    seen = set()
    for place, (tp, pp, ep, dp, nodes, cap) in enumerate(cases):
        here = tp * pp * dp // nodes
        # The engine's own reason comes first; of the others the last is named.
        wanted = SPREAD if nodes > 1 and dp > 1 and here % (tp * pp) else ""
        wanted = CAP if cap in (199.0, 701.0) else wanted
        wanted = EXPERTS if ep not in (1, tp * dp) else wanted
        assert (reason[place], supported[place]) == (wanted, not wanted), cases[place]
        assert fits[place]
        seen.add(wanted)
    assert seen == {"", EXPERTS, SPREAD, CAP}
