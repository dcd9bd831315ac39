"""How many sequences run under an arrival rate: Little's law, C = rate x output tokens x mean step(C), solved.

Sequences in a replica are Poisson distributed around C, so that below a few of them it idles between requests.
Candidates that differ in nothing but their places share a curve of throughput over running sequences, almost: the
engine sizes its CUDA graphs by ``max_num_seqs``, which a step with a short prompt feels. The shared curve is searched
first, another one only from there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from energylens.predictor.types import FloatArray, IntArray, Layouts
from energylens.predictor.work import graph_tokens

Served = Callable[[FloatArray], FloatArray]
"""Requests per second that replicas serve with so many sequences running, 1 or more, shape (n,) each."""
Serve = Callable[[Layouts], Served]

GRID_POINTS = 16
ROUNDS = 3
"""Little's law is solved on a grid of log(C), refined twice and then interpolated: an error of 1e-5 is left."""
REFINEMENTS = 7
CLEAR_OF_GRAPHS = 1.25
"""A step of so many times the tokens of the largest graph runs no differently for where exactly that ends."""


def busy_share(mean: FloatArray, full: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the share of time in which anything runs, and the mean sequences that run meanwhile.

    Args:
        mean: Mean running sequences, shape (n,), not above ``full``.
        full: Places, shape (n,), 1 or more.
    """
    busy = -np.expm1(-mean)
    while_busy = np.where(mean > 1e-12, np.maximum(mean / np.maximum(busy, 1e-300), 1.0), 1.0)
    # A Poisson number has a tail beyond the places, the replica has not.
    return np.where(while_busy > full, mean / full, busy), np.minimum(while_busy, full)


def running_sequences(
    layouts: Layouts, rate: FloatArray, full: FloatArray, serve: Serve, prompt: float
) -> tuple[FloatArray, FloatArray]:
    """Return the mean running sequences of each replica, and the most requests per second that it can serve.

    Args:
        layouts: Candidates, shape (n,).
        rate: Requests per second that arrive, shape (n,).
        full: Sequences that run when all places are taken, shape (n,), 1 or more.
        serve: Gives the throughput of layouts as a function of what runs.
        prompt: Tokens of a prompt that are not cached.

    Returns:
        Both of shape (n,); the first is ``full`` at most, and 0 where nothing arrives.
    """
    if not len(layouts):
        return np.zeros(0), np.zeros(0)
    columns = np.stack(
        [
            *(np.asarray(getattr(layouts, f"{kind}_parallel"), dtype=np.float64) for kind in _DEGREES),
            np.nan_to_num(layouts.power_cap_watts, nan=-1.0),
            rate,
        ]
    )
    limit = graph_tokens(layouts)
    limit = np.where(prompt >= CLEAR_OF_GRAPHS * limit, 0.0, limit)
    shared, leader = _groups(columns, layouts.max_batch_size)
    start = _searched(layouts.take(leader), rate[leader], _largest(full, shared), serve)
    most = serve(layouts)(full)
    own, first = _groups(np.vstack([columns, limit]), layouts.max_batch_size)
    solved = start[shared[first]]
    rows = np.flatnonzero((limit[first] != limit[leader[shared[first]]]) & (rate[first] > 0))
    if len(rows):
        at = first[rows]
        solved[rows] = _refined(solved[rows], rate[at], _largest(full, own)[rows], serve(layouts.take(at)))
    running = np.minimum(solved[own], full)
    with np.errstate(divide="ignore", invalid="ignore"):
        crowded = np.where(most > 0, full * np.minimum(rate / most, 1.0), full)
    beyond = np.maximum(crowded, 1e-12) / -np.expm1(-np.maximum(crowded, 1e-12)) > full
    return np.where(rate > 0, np.where(beyond, crowded, running), 0.0), most


_DEGREES = ("tensor", "pipeline", "expert", "data")


def _groups(columns: FloatArray, batch: IntArray) -> tuple[IntArray, IntArray]:
    """Return each candidate's group of equal columns, shape (n,), and each group's candidate with the largest batch."""
    larger = np.argsort(-batch, kind="stable")
    _, first, inverse = np.unique(columns[:, larger], axis=1, return_index=True, return_inverse=True)
    member = np.empty(len(batch), dtype=np.int64)
    member[larger] = inverse.reshape(-1)
    return member, larger[first]


def _largest(values: FloatArray, member: IntArray) -> FloatArray:
    top = np.zeros(int(member.max()) + 1)
    np.maximum.at(top, member, values)
    return top


def _throughput(mean: FloatArray, served: Served) -> FloatArray:
    busy, while_busy = busy_share(mean, np.full_like(mean, np.inf))
    return np.asarray(served(while_busy) * busy)


def _searched(layouts: Layouts, wanted: FloatArray, top: FloatArray, serve: Serve) -> FloatArray:
    """Return the solution of each of m layouts between none and ``top``, shape (m,) each."""
    low, high = np.full(len(layouts), np.log(1e-6)), np.log(np.maximum(top, 1.0))
    # All points of a round are one array call, since a call's fixed cost is that of a hundred candidates.
    served = serve(layouts.take(np.tile(np.arange(len(layouts)), GRID_POINTS)))
    column = np.arange(len(layouts))
    for _ in range(ROUNDS):
        grid = np.linspace(low, high, GRID_POINTS)
        found = _throughput(np.exp(grid).reshape(-1), served).reshape(grid.shape)
        enough = found >= wanted
        enough[-1] = True
        above = np.maximum(enough.argmax(axis=0), 1)
        low, high = grid[above - 1, column], grid[above, column]
    ends = np.log(np.maximum(found[above - 1, column], 1e-300)), np.log(np.maximum(found[above, column], 1e-300))
    gap = np.log(np.maximum(wanted, 1e-300)) - ends[0]
    part = np.clip(gap / np.maximum(ends[1] - ends[0], 1e-12), 0.0, 1.0)
    return np.asarray(np.exp(low + part * (high - low)))


def _refined(start: FloatArray, rate: FloatArray, top: FloatArray, served: Served) -> FloatArray:
    """Return the solutions on slower curves than those that ``start`` solves: false position (Illinois) in log(C)."""

    def excess(x: FloatArray) -> FloatArray:
        return np.log(np.maximum(_throughput(np.exp(x), served), 1e-300) / rate)

    low, high = np.log(np.minimum(start, top)), np.log(top)
    under, over = excess(low), excess(high)
    at, side = np.minimum(low - under, high), np.zeros(len(start))
    for _ in range(REFINEMENTS):
        value = excess(at)
        short = value < 0
        # The end that stays twice counts for half, or it would stay for ever.
        over = np.where(short & (side < 0), over / 2.0, over)
        under = np.where(~short & (side > 0), under / 2.0, under)
        low, under = np.where(short, at, low), np.where(short, value, under)
        high, over = np.where(short, high, at), np.where(short, over, value)
        side = np.where(short, -1.0, 1.0)
        width = over - under
        part = np.where(width > 0, -under / np.where(width > 0, width, 1.0), 0.0)
        at = low + np.clip(part, 0.0, 1.0) * (high - low)
    return np.asarray(np.exp(at))
