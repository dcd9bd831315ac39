from __future__ import annotations

import pytest
from tests.unit.measure.builders import POD, engine_seen, grid, seen

from energylens.measure.history import LABEL_GRACE_SECONDS, History
from energylens.measure.types import Histogram, PodRef

OTHER = PodRef("team", "other-0")
ALWAYS = float("-inf")


def times(series) -> list[float]:
    return [sample.time for sample in series.samples]


def test_a_gpu_belongs_to_the_pod_that_its_labels_name():
    history = History()
    history.record_gpus([seen(time, "A") for time in (0, 15)] + [seen(0, "B", owners=[OTHER])])
    (series,) = history.gpus_of([POD], since=ALWAYS).series
    assert (series.uuid, series.pod, series.namespace, times(series)) == ("A", "llama-0", "team", [0, 15])
    assert (series.samples[1].value, series.power_samples[1].value, series.power_limit_watts) == (1e6 + 7500, 500, 700)


def test_the_namespace_is_part_of_the_name():
    history = History()
    history.record_gpus([seen(0, owners=[PodRef("elsewhere", POD.pod)])])
    assert history.gpus_of([POD], since=ALWAYS).series == ()


def test_one_scrape_without_labels_is_tolerated():
    history = History()
    history.record_gpus(seen(time, owners=[] if time == 30 else [POD]) for time in grid(0, 60, 15))
    (series,) = history.gpus_of([POD], since=ALWAYS).series
    assert times(series) == [0, 15, 30, 45, 60]


def test_labels_that_stay_away_end_the_attribution():
    history = History()
    history.record_gpus(seen(time, owners=[POD] if time < 60 else []) for time in grid(0, 60 + LABEL_GRACE_SECONDS, 15))
    found = history.gpus_of([POD], since=ALWAYS)
    assert (found.series, found.unlabelled) == ((), ("GPU-0",))


def test_labels_that_come_back_begin_anew():
    history = History()
    gap = (45, 45 + LABEL_GRACE_SECONDS)
    history.record_gpus(seen(time, owners=[] if gap[0] <= time <= gap[1] else [POD]) for time in grid(0, 300, 15))
    (series,) = history.gpus_of([POD], since=ALWAYS).series
    assert series.samples[0].time > gap[1]


def test_a_gpu_that_changed_hands_counts_from_then():
    history = History()
    history.record_gpus(seen(time, owners=[OTHER] if time < 30 else [POD]) for time in grid(0, 60, 15))
    (series,) = history.gpus_of([POD], since=ALWAYS).series
    assert times(series) == [30, 45, 60]
    assert history.gpus_of([OTHER], since=ALWAYS).series == ()


def test_a_gpu_given_to_another_pod_is_not_lost():
    history = History()
    history.record_gpus(seen(time, owners=[POD] if time < 30 else [OTHER]) for time in grid(0, 60, 15))
    found = history.gpus_of([POD], since=ALWAYS)
    assert (found.series, found.unlabelled, found.shared) == ((), (), ())


def test_sharing_with_strangers_is_not_attributable():
    history = History()
    history.record_gpus([seen(0, owners=[POD, OTHER]), seen(15, owners=[POD, OTHER])])
    found = history.gpus_of([POD], since=ALWAYS)
    assert found.series == ()
    assert found.shared == ("GPU GPU-0 is shared with team/other-0",)


def test_sharing_among_ones_own_pods_counts_once():
    history = History()
    history.record_gpus([seen(0, owners=[POD, OTHER]), seen(15, owners=[POD, OTHER])])
    found = history.gpus_of([POD, OTHER], since=ALWAYS)
    assert len(found.series) == 1
    assert found.shared == ()


def test_a_free_mig_instance_is_not_attributable():
    history = History()
    history.record_gpus([seen(0, partly_unallocated=True)])
    (sentence,) = history.gpus_of([POD], since=ALWAYS).shared
    assert "unallocated MIG instances" in sentence


def test_sharing_of_long_ago_is_forgiven():
    history = History()
    history.record_gpus([seen(0, owners=[POD, OTHER]), seen(15), seen(30)])
    found = history.gpus_of([POD], since=10)
    assert (found.shared, times(found.series[0])) == ((), [15, 30])


def test_late_and_repeated_observations():
    history = History()
    history.record_gpus([seen(30), seen(0), seen(15), seen(15, watts=1.0)])
    (series,) = history.gpus_of([POD], since=ALWAYS).series
    assert times(series) == [0, 15, 30]
    assert series.samples[1].value == 1e6 + 7500


def test_engines_by_pod():
    history = History()
    itl = Histogram((1.0,), (2.0,))
    history.record_engines([engine_seen(15), engine_seen(0), engine_seen(0, OTHER)])
    history.record_engines([type(engine_seen(0))(POD, 30, "vllm", generation_tokens=None, itl=itl)])
    (series,) = history.engines_of([POD, PodRef("team", "unknown")])
    assert [sample.value for sample in series.generation_tokens] == [0, 15_000]
    assert [(sample.time, sample.histogram) for sample in series.itl] == [(30, itl)]
    assert series.prompt_tokens == ()


def test_memory_is_bounded_by_age():
    history = History(max_age_seconds=60)
    history.record_gpus([*(seen(time, "A") for time in grid(0, 120, 15)), seen(0, "B")])
    history.record_engines([engine_seen(0), engine_seen(120, OTHER)])
    history.prune(120)
    assert history.gpu_count == 1
    assert [len(series.generation_tokens) for series in history.engines_of([POD, OTHER])] == [1]
    assert times(history.gpus_of([POD], since=ALWAYS).series[0]) == [60, 75, 90, 105, 120]


def test_memory_is_bounded_by_count():
    history = History(max_samples=3)
    history.record_gpus(seen(time) for time in grid(0, 120, 15))
    assert times(history.gpus_of([POD], since=ALWAYS).series[0]) == [90, 105, 120]


@pytest.mark.parametrize("limit", [{"max_age_seconds": 0}, {"max_samples": 0}])
def test_limits_are_checked(limit):
    with pytest.raises(ValueError, match=next(iter(limit))):
        History(**limit)


def test_pods_that_left_long_ago_are_forgotten():
    history = History(max_age_seconds=60)
    for index in range(100):
        history.record_gpus([seen(15 * index, owners=[PodRef("team", f"job-{index}")])])
        history.prune(15 * index)
    assert len(history._gpus["GPU-0"].pods) <= 17
    (series,) = history.gpus_of([PodRef("team", "job-99")], since=ALWAYS).series
    assert times(series) == [15 * 99]


def test_a_gpu_that_is_read_no_more_does_not_say_that_pods_have_labels():
    """Its node may be gone; what counts is whether the exporters of today write labels."""
    history = History()
    assert not history.any_pod_labels()
    history.record_gpus([seen(0, "gone"), *(seen(time, "A", owners=[]) for time in (0, LABEL_GRACE_SECONDS))])
    assert history.any_pod_labels(), "it may only be late"
    history.record_gpus([seen(LABEL_GRACE_SECONDS + 15, "A", owners=[])])
    assert not history.any_pod_labels()
    history.record_gpus([seen(LABEL_GRACE_SECONDS + 30, "B")])
    assert history.any_pod_labels()
