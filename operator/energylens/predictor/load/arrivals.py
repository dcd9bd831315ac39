"""Running sequences under an arrival rate: the solution of Little's law, C = rate x output tokens x mean step(C).

The sequences in a replica are Poisson distributed around C, so a lightly loaded replica idles between requests. The law
is a root-finding problem in one variable that is solved for all candidates together; a candidate's result does not
depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from energylens.predictor.step.work import LARGEST_GRAPH, graph_tokens
from energylens.predictor.types import FloatArray, IntArray, Layouts
from energylens.records import dataclass

Step = Callable[[IntArray, FloatArray], FloatArray]
"""Function from indices of layouts and running sequences, at least 1, to the mean step in s, all of shape (m,)."""
Guess = tuple[FloatArray, FloatArray]
"""A guess of log(C), and the local slope of log(C / step(C)) over it; both of shape (n,)."""


@dataclass(frozen=True)
class StepTimes:
    """The steps of some layouts, as functions from their indices and running sequences, both of shape (m,)."""

    mean: Step
    with_once: Callable[[IntArray, FloatArray], tuple[FloatArray, FloatArray]]
    """Mean step in s, and the part of a step with prompts that does not grow with them, of shape (m,) each."""


TOLERANCE = 1e-4
"""Relative difference between both sides of the law at which the search ends; the last step reduces it to a tenth."""
MOST_ROUNDS = 60
SHORTEST_STEP_SECONDS = 1e-7
"""Lower end of the search, s, below any step of a GPU."""
CURVE = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0)
"""Sequences per data-parallel rank at which a layout is timed for the first guess."""
CLEAR_OF_GRAPHS = 1.25
"""Ratio of a step's tokens to the largest graph beyond which the exact size of that graph does not matter."""
_MOST_CODES = 2**62
"""Most codes of rows; int64 holds hardly more."""
_LIGHT_SLOPE = 0.95
"""Slope of log(C / step(C)) over log(C) under light load."""
_APART = 1e3
"""Offset between the curves of two layouts that are interpolated in one call; logarithms of rates span less."""


def busy_share(mean: FloatArray, full: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the share of time in which anything runs, and the mean running sequences during that time.

    Args:
        mean: Mean running sequences, shape (n,), at most ``full``.
        full: Places, shape (n,), 1 or more.
    """
    while_busy = _while_busy(mean)
    # A Poisson number exceeds the places with some probability; a replica cannot.
    return np.where(while_busy > full, mean / full, -np.expm1(-mean)), np.minimum(while_busy, full)


def running_sequences(
    layouts: Layouts,
    rate: FloatArray,
    full: FloatArray,
    ceiling: FloatArray,
    steps_of: Callable[[Layouts], StepTimes],
    prompt: float,
    output_tokens: float,
    longer: Callable[[FloatArray], FloatArray],
) -> tuple[FloatArray, FloatArray]:
    """Return the mean running sequences of each replica, and the most requests per second that it can serve.

    Candidates that differ only in their places almost share a curve of step time over running sequences: the engine
    sizes its CUDA graphs by ``max_num_seqs``, which affects steps with a short prompt.

    Args:
        layouts: Candidates, shape (n,).
        rate: Arrival rate, requests per second, shape (n,).
        full: Sequences that run when all places are taken, shape (n,), at least 1.
        ceiling: Sequences for which the largest batch size would have room, shape (n,).
        steps_of: Function that returns the steps of layouts, with requests that start together as in benchmarks.
        prompt: Uncached tokens of a prompt.
        output_tokens: Output tokens of a request.
        longer: Function from the second figure of `StepTimes.with_once` to the seconds by which a mean step with all
            places taken is longer since requests that arrive start one by one; both of shape (n,).

    Returns:
        Both of shape (n,); the first is at most ``full``, and 0 without arrivals.
    """
    if not len(layouts):
        return np.zeros(0), np.zeros(0)
    graphs = graph_tokens(layouts)
    graphs = np.where(prompt >= CLEAR_OF_GRAPHS * graphs, np.ceil(prompt / CLEAR_OF_GRAPHS), graphs)
    (kinds, layout), (first, replica) = distinct(*layouts.split), distinct(*layouts.split, graphs)
    steps = steps_of(_graphed(layouts.take(first), graphs[first]))
    step = steps.mean
    plain = layouts.take(kinds)
    largest = np.full(len(plain), LARGEST_GRAPH)
    guess = _curves(steps_of(_graphed(plain, largest)).mean, plain.data_parallel.astype(np.float64))

    unlike, same = distinct(replica, full)
    filled, once = steps.with_once(replica[unlike], full[unlike])
    most = full / ((filled[same] + longer(once[same])) * output_tokens)
    crowded = np.minimum(rate * filled[same] * output_tokens, full)
    # For these replicas no search is needed: they are full while busy.
    beyond = _while_busy(np.maximum(crowded, 1e-12)) > full
    mean = np.where(rate > 0, crowded, 0.0)
    searched = np.flatnonzero((rate > 0) & ~beyond & (rate <= most))
    if searched.size:
        own, each = distinct(replica[searched], rate[searched])
        asked = searched[own]
        goal = np.log(rate[asked] * output_tokens)
        top = np.maximum(ceiling, full)[asked]
        mean[searched] = np.minimum(
            _root(step, replica[asked], goal, top, guess(layout[asked], goal))[each], full[searched]
        )
    return mean, most


def thinned_variation(variation: FloatArray | float, parts: IntArray | FloatArray) -> FloatArray:
    """Return the variation of the arrivals at one of several servers among which requests are split at random.

    A share p of renewal arrivals has the squared coefficient of variation p c + 1 - p (Whitt, Bell System Technical
    Journal 62, 1983); Poisson arrivals remain Poisson.

    Args:
        variation: Squared coefficient of variation of the times between all requests, a number or of shape (n,).
        parts: Number of servers, shape (n,).
    """
    return np.asarray(1.0 + (variation - 1.0) / parts)


def distinct(*columns: npt.NDArray[np.generic]) -> tuple[IntArray, IntArray]:
    """Return the first of each distinct row of columns of shape (n,), and each row's index among the distinct rows."""
    code, codes = np.zeros(columns[0].shape, dtype=np.int64), 1
    for column in columns:
        number, size = _numbered(column)
        if codes * size > _MOST_CODES:
            code, codes = _numbered(code, dense=True)
        code, codes = code * size + number, codes * size
    _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    return np.asarray(first), np.asarray(inverse).reshape(-1)


def _numbered(column: npt.NDArray[np.generic], *, dense: bool = False) -> tuple[IntArray, int]:
    """Return whole numbers from 0 in the order of the values of a column, shape (n,), and a number above all of them.

    Whole values stand for themselves, as degrees do, unless ``dense``: sorting a column takes longer than all else.
    """
    if not dense and np.issubdtype(column.dtype, np.integer) and column.size and column.min() >= 0:
        return column.astype(np.int64), int(column.max()) + 1
    values, number = np.unique(column, return_inverse=True)
    return number.reshape(-1).astype(np.int64), max(1, values.size)


def _graphed(layouts: Layouts, tokens: FloatArray) -> Layouts:
    """Return the layouts with the batch whose CUDA graphs hold steps of the given tokens, shape (n,)."""
    return replace(layouts, max_batch_size=np.ceil(tokens / 2.0).astype(np.int64))


def _while_busy(mean: FloatArray) -> FloatArray:
    """Return the mean running sequences while any run, at least 1, shape of ``mean``."""
    return np.maximum(mean / np.maximum(-np.expm1(-mean), 1e-300), 1.0)


def _curves(step: Step, ranks: FloatArray) -> Callable[[IntArray, FloatArray], Guess]:
    """Return guesses by interpolation between the step times of a few batches of each layout.

    Args:
        step: Function for the mean step of a layout with the largest CUDA graphs.
        ranks: Data-parallel ranks of each layout, shape (u,).
    """
    on = np.repeat(np.arange(ranks.size), len(CURVE))
    running = (ranks[:, None] * np.asarray(CURVE)).reshape(-1)
    x = np.log(running)
    y = np.maximum.accumulate(x - np.log(step(on, running)) + on * _APART)

    def guess(layout: IntArray, goal: FloatArray) -> Guess:
        place = np.searchsorted(y, goal + layout * _APART)
        first = layout * len(CURVE)
        below = np.clip(place - 1, first, first + len(CURVE) - 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = (y[below + 1] - y[below]) / (x[below + 1] - x[below])
        outside = (place <= first) | ~(slope > 0)
        slope = np.where(outside, _LIGHT_SLOPE, slope)
        return x[below] + (goal + layout * _APART - y[below]) / slope, slope

    return guess


def _root(
    step: Step,
    replica: IntArray,
    goal: FloatArray,
    most: FloatArray,
    guess: Guess,
) -> FloatArray:
    """Return the mean running sequences under each arrival rate, shape (n,), at most ``most``.

    Uses the secant method in logarithms between a lower and an upper bound. A candidate is done when both sides of the
    law agree to :data:`TOLERANCE`, so that later rounds have few candidates.

    Args:
        step: Function for the mean step of a replica.
        replica: Index of each candidate's replica, shape (n,).
        goal: log(rate x output tokens), shape (n,).
        most: Upper end of the search, shape (n,).
        guess: Start of the search.
    """
    low, top = goal + np.log(SHORTEST_STEP_SECONDS), np.log(most)
    high = top.copy()
    place, slope = np.clip(guess[0], low, high), guess[1]
    before, behind = np.full_like(place, np.nan), np.full_like(place, np.nan)
    active = np.arange(place.size)
    for _ in range(MOST_ROUNDS):
        if not active.size:
            break
        here = place[active]
        now = here - goal[active] - np.log(step(replica[active], _while_busy(np.exp(here))))
        low[active] = np.where(now < 0, here, low[active])
        high[active] = np.where(now > 0, here, high[active])
        with np.errstate(divide="ignore", invalid="ignore"):
            run = (now - behind[active]) / (here - before[active])
            following = here - now / np.where(np.isfinite(run) & (run > 0), run, slope[active])
        inside = (following > low[active]) & (following < high[active])
        untried = (now < 0) & (high[active] == top[active])
        otherwise = np.where(untried, high[active], (low[active] + high[active]) / 2.0)
        # In the last round the next point is the better result and costs nothing.
        place[active] = np.where(inside, following, otherwise)
        before[active], behind[active] = here, now
        active = active[(np.abs(now) > TOLERANCE) & (high[active] - low[active] > TOLERANCE)]
    return np.asarray(np.exp(np.clip(place, low, high)))
