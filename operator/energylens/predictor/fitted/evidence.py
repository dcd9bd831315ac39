"""Measured runs near a candidate, on which the confidence of a prediction is based."""

from __future__ import annotations

from math import exp

from energylens.predictor.fitted.coefficients import Coefficients
from energylens.predictor.fitted.features import (
    NOTHING,
    before,
    is_unpacked,
    kind_known,
    measured_kind,
    measured_parallelism,
    nearest,
    run_features,
    similar_lengths,
    storage_key,
)
from energylens.predictor.fitted.profiles import EngineProfile
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import FloatArray, GpuSpec, Layouts, Workload
from energylens.records import dataclass

Degrees = tuple[int, int, int, int]
"""Names of the degrees: tensor, pipeline, expert and data parallel."""


@dataclass(frozen=True)
class Evidence:
    """Measured runs of one engine profile near one candidate."""

    nearest: int
    """The nearest measurement, as an index into `energylens.predictor.fitted.features.NEAREST`."""
    products: tuple[str, ...]
    """Short names of the products with runs of the engine; the candidate's product may be among them."""
    split: bool
    """Whether runs have the candidate's kinds of splits: over pipeline stages, data-parallel ranks or a host link, or
    none."""
    kind: str
    """Kind of model, such as ``mixture of experts in fp8``."""
    kind_known: bool
    """Whether that kind of model was run under the engine, on any product."""
    kind_here: bool
    """Whether that kind was run on the candidate's product."""
    model_known: bool
    """Whether the model, or another release with its shapes, was run under the engine on any product."""
    layouts: tuple[Degrees, ...]
    """Layouts in which the model was run on the product."""
    loads: tuple[float, float] | None
    """Fewest and most sequences running at once with which the candidate's layout was run for such prompts and outputs;
    None if it was not run."""
    before: bool
    """Whether that kind of model was run under other versions of the engine, on any product."""
    versions: tuple[str, str] | None
    """First and last version of the engine among the runs; None if there are none."""


def evidence(
    coefficients: Coefficients,
    profile: EngineProfile,
    model: ModelSpec,
    gpu: GpuSpec,
    layouts: Layouts,
    workload: Workload,
    running: FloatArray,
) -> Evidence:
    """Return the measurements near one candidate.

    Args:
        coefficients: The coefficients with their runs.
        profile: Profile of the engine.
        model: The model as served.
        gpu: The GPU product.
        layouts: One candidate, shape (1,).
        workload: The mean request.
        running: Running sequences, shape (1,).
    """
    products = tuple(sorted(name for name, engines in coefficients.measured.items() if profile.name in engines))
    kind = f"{'mixture of experts' if model.is_moe else 'dense model'} in {storage_key(model).partition('-')[0]}"
    if is_unpacked(model):
        kind += " with 16-bit activations"
    residual = coefficients.residual
    if residual is None:
        return Evidence(NOTHING, products, False, kind, False, False, False, (), None, False, profile.measured)
    training, features = residual.training, run_features(model, gpu, layouts, workload, running, profile.tag)
    unpacked = is_unpacked(model)
    near = int(nearest(training, features, here_only=unpacked)[0]) if gpu.name in products else NOTHING
    here = bool(measured_kind(training, features)[0])
    layout = str(features.keys["layout"][0])
    stem = layout.rpartition("/")[0]
    labels = sorted({label for label in training.members["layout"] if label.rpartition("/")[0] == stem})
    same = training.members["load"].get(str(features.keys["load"][0]))
    if same is not None:
        same = same & similar_lengths(training, str(features.keys["lengths"][0]))
    loads = None
    if same is not None and same.any():
        batches = training.log_batch[same]
        loads = (exp(float(batches.min())), exp(float(batches.max())))
    return Evidence(
        nearest=near,
        products=products,
        split=bool(measured_parallelism(training, features)[0]),
        kind=kind,
        kind_known=here if unpacked else bool(kind_known(training, features)[0]),
        kind_here=here,
        model_known=str(features.keys["architecture"][0]) in training.members["architecture"],
        layouts=tuple(_degrees(label.rpartition("/")[2]) for label in labels),
        loads=loads,
        before=not unpacked and bool(before(training, features, "product")[0]),
        versions=profile.measured if products else None,
    )


def _degrees(text: str) -> Degrees:
    """Return the degrees in a name such as ``tp8pp1ep8dp1``."""
    rest = text.removeprefix("tp")
    found = []
    for name in ("pp", "ep", "dp"):
        part, _, rest = rest.partition(name)
        found.append(int(part))
    return found[0], found[1], found[2], int(rest)
