from __future__ import annotations

import numpy as np
import pytest
from tests.unit.accuracy.fakes import FakePredictor, run
from tests.unit.runs.test_table import GOOD, csv_of

from energylens.accuracy.evaluate import PredictorLike, measured_arrays, predict_runs
from energylens.predictor.fitted.profiles import UnknownEngineError
from energylens.runs import parse_runs, resolver


def test_predictions_come_back_in_the_order_of_the_runs_and_share_calls() -> None:
    fake = FakePredictor()
    runs = [run(batch=8), run(batch=4, gpu="B200"), run(batch=2), run(batch=1, gpu="B200"), run(batch=200)]
    found = predict_runs(runs, resolver(), lambda _: fake)
    assert found.values["itl"].tolist() == [8, 4, 2, 1, 200]
    assert fake.calls == 2
    assert found.nearest.tolist() == [1, 1, 1, 1, 3]
    assert found.error == ("",) * 5


def test_each_failure_has_its_text_and_costs_no_other_run() -> None:
    def choose(engine: str | None) -> PredictorLike:
        if engine is not None:
            raise UnknownEngineError(f"engine {engine!r} has no profile")
        return FakePredictor()

    runs = [
        run(batch=8),
        run(batch=13),
        run(batch=8, gpus=3),
        run(batch=17),
        run(model="nobody/nothing"),
        run(gpu="Voodoo2"),
        run(engine="triton==1"),
        run(batch=16),
    ]
    found = predict_runs(runs, resolver(), choose)
    assert found.ok.tolist() == [True, False, False, False, False, False, False, True]
    assert found.error[1] == "13 sequences bring bad luck"
    assert found.error[2] == "heads are not divisible by 3"
    assert found.error[3] == "the prediction is not a finite number"
    assert "nobody/nothing" in found.error[4]
    assert "Voodoo2" in found.error[5]
    assert found.error[6] == "engine 'triton==1' has no profile"
    assert np.isfinite(found.values["energy"]).tolist() == found.ok.tolist()


def test_data_parallel_ranks_share_the_batch() -> None:
    seen: list[int] = []

    class Spy(FakePredictor):
        def at_concurrency(self, model, gpu, layouts, workload, concurrency, **_):
            seen.extend(layouts.max_batch_size.tolist())
            return super().at_concurrency(model, gpu, layouts, workload, concurrency)

    predict_runs(
        [run(gpus=4, data_parallel=4, batch=16), run(gpus=4, data_parallel=4, batch=2)], resolver(), lambda _: Spy()
    )
    assert seen == [4, 1]


def test_measured_values_are_needed_to_judge() -> None:
    (unmeasured,) = parse_runs(csv_of(GOOD), "in.csv", measured=False).runs
    with pytest.raises(ValueError, match="without their measured columns"):
        measured_arrays([unmeasured])
    assert measured_arrays([run(itl=3.0, energy=2.0)])["power"].tolist() == [200.0]
