"""Engines that go wrong: what is counted from then on, and nothing before."""

from __future__ import annotations

import pytest
from tests.unit.measure.builders import FakeClock
from tests.unit.replay.objects import cluster, pod

from energylens.measure.types import PodRef
from energylens_dev.replay.exposition import rows
from energylens_dev.replay.faults import ENGINE_FAULTS, Load, Slow, apply, one_gpu_missing
from energylens_dev.replay.fleet import ITL_BOUNDS, Engine, Fleet
from energylens_dev.replay.server import Options, Replay

POD = PodRef("team", "llama-0")


@pytest.fixture
def fleet() -> Fleet:
    made = Fleet(time=0.0)
    made.update(cluster(pod()), 10)
    made.advance(110)
    return made


def after(fleet: Fleet, fault: Load | Slow) -> tuple[Engine, Engine, Engine]:
    """Return the engine when the fault came, and a minute later with it and without it."""
    before = fault(fleet.engines[POD])
    fleet.advance(170)
    return before, fault(fleet.engines[POD]), fleet.engines[POD]


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_share_of_the_load_is_carried_from_then_on(fleet: Fleet, share: float) -> None:
    before, broken, whole = after(fleet, Load(share))
    assert broken.tokens - before.tokens == pytest.approx(share * (whole.tokens - before.tokens))
    assert broken.requests - before.requests == pytest.approx(share * (whole.requests - before.requests))
    assert broken.itl_counts[-1] == pytest.approx(broken.tokens)
    assert broken.point.concurrency == share * whole.point.concurrency


def test_a_slow_engine_makes_as_many_tokens_each_within_four_tenths_of_a_second(fleet: Fleet) -> None:
    before, broken, whole = after(fleet, Slow())
    assert broken.tokens == whole.tokens
    new = [now - then for now, then in zip(broken.itl_counts, before.itl_counts, strict=True)]
    late = ITL_BOUNDS.index(0.4)
    assert new[:late] == [0.0] * late
    assert new[late:] == pytest.approx([whole.tokens - before.tokens] * len(new[late:]))


def test_a_gpu_of_a_pod_is_missing(fleet: Fleet) -> None:
    whole = rows(fleet)
    left = apply([one_gpu_missing], whole)
    (gone,) = [row for row in whole if row not in left]
    assert gone.pod


def test_engines_and_exporters_break_apart_and_stay_as_they_are() -> None:
    replay = Replay(FakeClock(), Options())
    replay.update(cluster(pod()))
    assert "vllm:generation_tokens_total" in replay.engine_text(POD)
    replay.set_faults(["dead-engine", "dead"])
    with pytest.raises(LookupError, match="llama-0 is dead"):
        replay.engine_text(POD)
    replay.set_faults(["idle", "driver-reload"])
    idle = replay.engine_faults["idle"]
    assert "vllm:num_requests_running" in replay.engine_text(POD)
    replay.set_faults(["idle"])
    assert (replay.engine_faults["idle"], replay.faults) == (idle, {})
    with pytest.raises(ValueError, match="'typo' is not one of"):
        replay.set_faults(["typo"])
    assert set(ENGINE_FAULTS) == {"dead-engine", "idle", "half-load", "slow"}


def test_a_fault_may_hit_only_pods_of_a_name() -> None:
    replay = Replay(FakeClock(), Options())
    replay.update(cluster(pod(), pod("llama-canary-0")))
    replay.set_faults(["dead-engine@canary", "drop-labels@canary"])
    assert "vllm:generation_tokens_total" in replay.engine_text(POD)
    with pytest.raises(LookupError, match="llama-canary-0 is dead"):
        replay.engine_text(PodRef("team", "llama-canary-0"))
    assert 'pod="llama-0"' in replay.dcgm_text()
    assert 'pod="llama-canary-0"' not in replay.dcgm_text()
    with pytest.raises(ValueError, match="'typo@canary' is not one of"):
        replay.set_faults(["typo@canary"])
