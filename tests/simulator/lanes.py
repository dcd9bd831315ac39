"""The schedule of :mod:`counting` for many runs at once: each operation advances every run by one step.

Percentiles near capacity need millions of requests. A hundred runs side by side take little more time than one, because
the interpreter is busy with operations, not with their elements. Prompts are admitted and computed in the order of
arrival, so that a run is described by counters into that order; a test compares every token with :mod:`counting`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from tests.simulator.batching import Limits

from energylens.predictor.types import FloatArray, IntArray

WINDOW = 4
"""Requests of a run that one operation looks at."""
_OFFSETS = np.arange(WINDOW)[:, None]
RESOLVED = 1024
"""Steps whose ends are kept until the requests that end with them are looked up."""
BINS = 8192
SHORTEST, LONGEST = 1e-4, 1e3
"""Range of the histogram of steps, s: a bin is 0.2 % wide."""


class StepSeconds(Protocol):
    """Function for the seconds of steps, shape (runs,)."""

    def __call__(self, decodes: IntArray, tokens: IntArray) -> FloatArray:
        """Return the seconds of steps with so many decoding sequences and prompt tokens, 0 for none."""
        ...


@dataclass(frozen=True)
class Loads:
    """The requests of several runs; arrays of shape (runs, requests)."""

    arrivals: FloatArray
    """Seconds, rising along each run."""
    prompts: IntArray
    outputs: IntArray


@dataclass(frozen=True)
class Served:
    """What became of the requests; times in seconds, arrays of shape (runs, requests)."""

    first: FloatArray
    """From arrival to first token."""
    last: FloatArray
    """When the last token was there."""
    steps: FloatArray
    """Output tokens by the seconds of their step, shape (:data:`BINS`,), from ``begins`` to the last arrival."""
    held: FloatArray
    """Seconds by the number of decoding sequences, over the same time and all runs, shape (slots + 1,)."""

    def itl(self, level: float) -> float:
        """Return a quantile of the seconds between two tokens: the geometric middle of its bin."""
        found = int(np.searchsorted(np.cumsum(self.steps), level * self.steps.sum()))
        return float(SHORTEST * (LONGEST / SHORTEST) ** ((found + 0.5) / BINS))


def serve(loads: Loads, limits: Limits, seconds: StepSeconds, begins: FloatArray) -> Served:
    """Serve the requests of all runs until all have ended; blocks of the cache are not looked at.

    Args:
        loads: The requests.
        limits: Of the engine.
        seconds: Function for the time of steps.
        begins: When the steps of each run begin to count, s, shape (runs,).
    """
    runs = _Runs(loads, limits, seconds, begins)
    while not runs.ended:
        runs.step()
    runs.look_up()
    return Served(
        runs.first[:, : runs.count], runs.last[:, : runs.count], runs.histogram, runs.held[: limits.slots + 1]
    )


class _Runs:
    """The state of all runs between two steps; counters have shape (runs,)."""

    def __init__(self, loads: Loads, limits: Limits, seconds: StepSeconds, begins: FloatArray) -> None:
        runs, self.count = loads.arrivals.shape
        width = self.count + WINDOW + 1
        self.limits, self.seconds, self.begins = limits, seconds, begins
        self.ends = loads.arrivals[:, -1]
        # Beyond the last request of a run nothing ever arrives.
        self.arrivals = np.full((runs, width), np.inf)
        self.arrivals[:, : self.count] = loads.arrivals
        self.outputs = np.ones((runs, width), dtype=np.int64)
        self.outputs[:, : self.count] = loads.outputs
        # Prompt tokens of all requests before each.
        self.before_prompt = np.full((runs, width), np.iinfo(np.int64).max // 2)
        self.before_prompt[:, 0] = 0
        self.before_prompt[:, 1 : self.count + 1] = np.cumsum(loads.prompts, axis=1)
        self.first, self.last = np.zeros((runs, width)), np.zeros((runs, width))
        self.row = np.arange(runs) * width
        self.here = np.arange(runs)
        self.now, self.before = np.zeros(runs), np.zeros(runs)
        self.arrived, self.admitted, self.prefilled, self.decoding, self.computed = (
            np.zeros(runs, dtype=np.int64) for _ in range(5)
        )
        self.number = 0
        self.ending = np.zeros((int(loads.outputs.max()) + 1, runs), dtype=np.int64)
        self.clock = np.zeros((RESOLVED, runs))
        self.log: list[tuple[FloatArray, FloatArray, IntArray]] = []
        self.pending: list[tuple[IntArray, IntArray]] = []
        self.histogram = np.zeros(BINS)
        self.held = np.zeros(limits.slots + 1)

    @property
    def ended(self) -> bool:
        """Whether all requests of all runs have ended."""
        return bool((self.prefilled == self.count).all() and not self.decoding.any())

    def step(self) -> None:
        """Advance every run by one step; a run without requests waits for the next."""
        idle = (self.decoding == 0) & (self.prefilled == self.arrived)
        if idle.any():
            following = self.arrivals.take(self.row + self.arrived)
            self.now = np.where(idle & np.isfinite(following), np.maximum(self.now, following), self.now)
            self.before = np.where(idle, self.now, self.before)
        seen = self.before if self.limits.scheduled_ahead else self.now
        self.arrived += _leading(self.arrivals, self.row + self.arrived, seen)
        budget = self.limits.step_tokens - self.decoding
        most = np.minimum(self.arrived, self.prefilled + self.limits.slots - self.decoding)
        # A prompt is admitted while tokens are left after all before it.
        fitting = self.admitted + _leading(self.before_prompt, self.row + self.admitted, self.computed + budget - 1)
        self.admitted = np.maximum(np.minimum(most, fitting), self.admitted)
        whole = self.before_prompt.take(self.row + self.admitted)
        tokens = np.minimum(whole - self.computed, budget)
        took = np.where((self.decoding > 0) | (tokens > 0), self.seconds(self.decoding, tokens), 0.0)
        self.computed += tokens
        self.log.append((self.now, took, self.decoding.copy()))
        self.before, self.now = self.now, self.now + took
        self._finish()

    def _finish(self) -> None:
        """Give first tokens to the prompts that a step completed, and end the requests of which it was the last."""
        self.number += 1
        place = self.number % len(self.ending)
        self.decoding = self.decoding - self.ending[place]
        self.ending[place] = 0
        self.clock[self.number % RESOLVED] = self.now
        done = _leading(self.before_prompt, self.row + self.prefilled + 1, self.computed)
        if done.any():
            run = np.repeat(self.here, done)
            flat = np.repeat(self.row + self.prefilled - (np.cumsum(done) - done), done) + np.arange(run.size)
            ends = self.outputs.take(flat) - 1
            self.first.put(flat, self.now[run] - self.arrivals.take(flat))
            more = ends > 0
            np.add.at(self.ending, ((self.number + ends[more]) % len(self.ending), run[more]), 1)
            self.decoding = self.decoding + np.bincount(run[more], minlength=self.here.size)
            self.prefilled += done
            self.pending.append((flat, self.number + ends))
        if self.number % RESOLVED == 0:
            self.look_up()

    def look_up(self) -> None:
        """Note the ends of the requests that ended in the last steps, and count those steps."""
        now, took, decoding = (np.stack(column) for column in zip(*self.log, strict=True))
        counted = (now >= self.begins) & (now < self.ends) & (took > 0.0)
        took, decoding = took[counted], decoding[counted]
        bins = np.log(took / SHORTEST) * (BINS / np.log(LONGEST / SHORTEST))
        self.histogram += np.bincount(np.clip(bins, 0, BINS - 1).astype(np.int64), decoding, BINS)
        self.held += np.bincount(decoding, took, len(self.held))
        self.log.clear()
        if not self.pending:
            return
        flat, step = (np.concatenate(column) for column in zip(*self.pending, strict=True))
        past = step <= self.number
        run = flat[past] // self.first.shape[1]
        self.last.put(flat[past], self.clock[step[past] % RESOLVED, run])
        self.pending = [(flat[~past], step[~past])]


def _leading(values: npt.NDArray[np.number], begin: IntArray, most: npt.NDArray[np.number]) -> IntArray:
    """Return how many values from ``begin``, flat indices of shape (runs,), are at most ``most``, shape (runs,).

    Values rise along a run and end with one that exceeds every bound.
    """
    below = values.take(begin + _OFFSETS, mode="clip") <= most
    found = np.add.reduce(below, axis=0, dtype=np.int64)
    full = np.flatnonzero(below[-1])
    while full.size:
        at = begin[full] + found[full]
        more = (values.take(at + _OFFSETS, mode="clip") <= most[full]).sum(axis=0)
        found[full] += more
        full = full[more == WINDOW]
    return found
