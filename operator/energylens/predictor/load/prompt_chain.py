"""Steps that share prompts of several lengths as a Markov chain, and the time to first token in it.

The law in :mod:`step_law` is smooth within a few kinds of steps. It misses what decides the tail where one prompt in
ten is ten times longer than the others: a prompt that fills a step is continued in the next one, so that requests that
arrive in a long step wait for another long step. Here the distribution of the prompts in a step is computed on a grid:
the work in the queue is what the last step left, and what arrived during an earlier step, a compound Poisson sum whose
transform is known. With steps composed ahead, a step takes in what arrived during the last but one, so that two
neighbouring steps depend on each other only where the first was full; the chain keeps that, and nothing else, of their
dependence. In the unit of a mean prompt's seconds, all replicas under one load differ in four numbers, so that cells of
a lattice over these are solved once and interpolated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from threading import Lock

import numpy as np
import numpy.typing as npt

from energylens.predictor.load.step_law import normal_share
from energylens.predictor.load.step_work import Group
from energylens.predictor.types import FloatArray, IntArray
from energylens.records import dataclass

GRID = 256
"""Points of the distributions of work and time."""
NODES = 8
"""Lengths of steps from which arrivals are counted, beside that of a full step."""
MOST_ROUNDS = 80
TOLERANCE = 1e-3
"""Change of the distribution of work in a round, summed over the grid, at which it is stationary."""
FOLDS = 12
"""Full steps for which a prompt waits or which it takes at most; longer ones are neglected."""
SELDOM = 1e-5
"""Share of the requests whose prompts need still more steps, below which they are neglected."""
LEVELS: FloatArray = np.array([.002, .01, .04, .1, .2, .35, .5, .65, .8, .9, .95, .98, .99, .995, .999])  # fmt: skip
"""Levels of the quantiles that stand for a distribution."""
LATTICE: tuple[tuple[float, float, float], ...] = (
    (-5.0, 3.5, 0.5),
    (-5.0, 5.8, 0.45),
    (-3.2, 8.0, 0.7),
    (0.0, 3.0, 0.5),
)
"""Least and most of a coordinate, and the distance between two cells: log odds of the share of the time in which
prompts are computed, logarithm of a decode step, of the room, and of the clump of arrivals."""
SIZES = tuple(round((most - least) / apart) + 1 for least, most, apart in LATTICE)
LONGEST_STEP = float(np.exp(LATTICE[1][1]))
"""Longest decode step in the unit of a mean prompt."""
FULLEST = 0.97
"""Largest share of a step's room that arrivals need when steps are full, above which a cell is not stable."""
BATCH = 64

Spectrum = npt.NDArray[np.complex128]


@dataclass(frozen=True)
class Loads:
    """Loads in the unit of a mean prompt's seconds; arrays of one shape."""

    halted: FloatArray
    """Prompts that arrive per second of a mean prompt, below 1."""
    step: FloatArray
    """Seconds of a step that only decodes."""
    room: FloatArray
    """Prompts for which a step has room."""
    clump: FloatArray
    """Variance / mean of the prompts that arrive during a step."""


class FirstTokenTable:
    """Quantiles of the time to first token of classes of prompts, at a replica that is busy."""

    def __init__(self, groups: tuple[Group, ...], classes: tuple[Group, ...], *, ahead: bool) -> None:
        """Store the load.

        Args:
            groups: All prompts by length.
            classes: The prompts whose first tokens are asked for.
            ahead: Whether a step is composed while the one before runs.
        """
        self._groups, self._classes, self._ahead = groups, classes, ahead
        # The column of each cell that is solved.
        self._columns = np.full(SIZES, -1, dtype=np.int64).reshape(-1)
        self._solved = np.zeros((len(classes), len(LEVELS), 0))
        self._lock = Lock()

    def log_quantiles(self, loads: Loads) -> FloatArray:
        """Return logarithms of the quantiles at :data:`LEVELS`, shape (classes, levels, ...), in mean prompts."""
        shape = loads.halted.shape
        odds = np.log(np.maximum(loads.halted, 1e-9) / np.maximum(1.0 - loads.halted, 1e-9))
        places = [odds, *(np.log(np.maximum(each, 1e-9)) for each in (loads.step, loads.room, loads.clump))]
        # Each load lies between cells, of which only those with a weight are solved.
        corners = [(np.zeros(odds.size, dtype=np.int64), np.ones(odds.size))]
        for place, (least, most, apart), size in zip(places, LATTICE, SIZES, strict=True):
            at = (np.clip(place, least, most) - least).reshape(-1) / apart
            lower = np.floor(at).astype(np.int64)
            part = at - lower
            above = np.minimum(lower + 1, size - 1)
            once = [(code * size + lower, weight * (1.0 - part)) for code, weight in corners]
            twice = [(code * size + above, weight * part) for code, weight in corners] if part.any() else []
            corners = once + twice
        with self._lock:
            self._solve(np.concatenate([code[weight > 0.0] for code, weight in corners]))
            columns, solved = self._columns, self._solved
        found = np.zeros((len(self._classes), len(LEVELS), odds.size))
        for code, weight in corners:
            found += weight * solved[:, :, columns[code]]
        return found.reshape(*found.shape[:2], *shape)

    def _solve(self, cells: IntArray) -> None:
        """Solve the cells that are not solved yet."""
        missing = np.unique(cells[self._columns[cells] < 0])
        for begin in range(0, missing.size, BATCH):
            batch = missing[begin : begin + BATCH]
            odds, step, room, clump = (
                least + apart * place
                for place, (least, _, apart) in zip(np.unravel_index(batch, SIZES), LATTICE, strict=True)
            )
            step, room = np.exp(step), np.exp(room)
            halted = np.minimum(1.0 / (1.0 + np.exp(-odds)), FULLEST * room / (room + step))
            chain = _Chain(Loads(halted, step, room, np.exp(clump)), self._groups, ahead=self._ahead)
            found = np.stack([chain.log_quantiles(each) for each in self._classes])
            self._columns[batch] = np.arange(batch.size) + self._solved.shape[2]
            self._solved = np.concatenate([self._solved, found], axis=2)


@lru_cache(maxsize=16)
def first_token_table(groups: tuple[Group, ...], classes: tuple[Group, ...], ahead: bool) -> FirstTokenTable:
    """Return the table of a load, with the cells that were solved before."""
    return FirstTokenTable(groups, classes, ahead=ahead)


class _Chain:
    """The chain of n cells; arrays have n rows, spectra n rows of GRID / 2 + 1 frequencies."""

    def __init__(self, loads: Loads, groups: Sequence[Group], *, ahead: bool) -> None:
        self.step, self.room, self.rate, self.ahead = loads.step, loads.room, loads.halted, ahead
        self.width = _reach(loads, groups) / GRID
        self.points = np.arange(GRID) * self.width[:, None]
        self.rows = np.arange(len(self.step))
        prompts = sum(group.share * self._prompt(group) for group in groups) / sum(group.share for group in groups)
        silent = 1.0 - np.fft.rfft(prompts)
        more = loads.clump[:, None] - 1.0
        # Clumps of a negative binomial number of arrivals (a compound Poisson sum of logarithmic clumps).
        with np.errstate(divide="ignore", invalid="ignore"):
            self.silent = np.where(more > 1e-9, np.log1p(more * silent) / more, silent)
        # Of one arrival, those that came in its clump besides.
        self.beside = 1.0 / (1.0 + more * silent)
        # The last point before the room, and how far the room is beyond it; a grid may end before.
        place = np.minimum(self.room / self.width, GRID - 2.001)
        self.last = np.floor(place).astype(np.int64)
        self.beyond = (place - self.last)[:, None]
        self.fits = np.arange(GRID) <= self.last[:, None]
        self.full = self.step + place * self.width
        self.full_spectrum = self._shifted(place)
        # Lengths of steps that are not full, denser where they are short.
        self.nodes = (place * self.width)[:, None] * (np.arange(NODES) / (NODES - 1.0)) ** 2
        self.lengths = self.step[:, None] + self.nodes
        self.stationary = self._stationary()

    def log_quantiles(self, own: Group) -> FloatArray:
        """Return logarithms of the quantiles of the time to first token of prompts at :data:`LEVELS`, (levels, n)."""
        quiet, busy, weights, filled = self.stationary
        mine = np.fft.rfft(self._prompt(own))
        mass = np.concatenate([weights, filled[:, None]], axis=1)
        time = mass * np.concatenate([self.lengths, self.full[:, None]], axis=1)
        time = time / time.sum(axis=1, keepdims=True)
        usual = np.einsum("nk,nkf->nf", weights, self._arrivals(self.lengths))
        usual = usual + filled[:, None] * self._arrivals(self.full[:, None])[:, 0]
        found = self._first_tokens(mine, quiet, self.lengths, time[:, :-1], usual, filled=False)
        found = found + self._first_tokens(mine, busy, self.full[:, None], time[:, -1:], usual, filled=True)
        density = np.maximum(np.fft.irfft(found, GRID), 0.0)
        density = density / density.sum(axis=1, keepdims=True)
        reached = np.cumsum(density, axis=1)
        shift = self.step * (2.0 if self.ahead else 1.0)
        result = []
        for level in LEVELS:
            at = np.minimum((reached < level).sum(axis=1), GRID - 1)
            before = reached[self.rows, at] - density[self.rows, at]
            part = (level - before) / np.maximum(density[self.rows, at], 1e-15)
            # The first point stands for the half of a cell that is not negative.
            place = np.where(at == 0, 0.5 * part, at - 0.5 + part)
            result.append(np.log(shift + place * self.width))
        return np.stack(result)

    def _stationary(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return the work in the queue as a step begins that is not full, and one that is; weights of both.

        Both distributions have a sum of 1. The weights are those of the steps with each of the lengths, shape
        (n, NODES), and of full steps, shape (n,).
        """
        arrivals, full_arrivals = self._arrivals(self.lengths), self._arrivals(self.full[:, None])[:, 0]
        onto = self._onto_nodes()
        mean = self.step / (1.0 - self.rate)
        quiet = np.maximum(np.fft.irfft(self._arrivals(mean[:, None])[:, 0], GRID), 0.0)
        busy = np.zeros_like(quiet)
        weights = np.einsum("nm,nmk->nk", np.where(self.fits, quiet, 0.0), onto)
        # A cell ends on its own, so that it does not depend on the others.
        ended = np.zeros((len(self.rows), 1), dtype=bool)
        for _ in range(MOST_ROUNDS):
            usual = np.einsum("nk,nkf->nf", weights / weights.sum(axis=1, keepdims=True), arrivals)
            following, after_full = self._next(quiet, busy, usual, full_arrivals)
            changed = np.abs(following + after_full - quiet - busy).sum(axis=1, keepdims=True)
            quiet, busy = np.where(ended, quiet, following), np.where(ended, busy, after_full)
            weights = np.einsum("nm,nmk->nk", np.where(self.fits, quiet + busy, 0.0), onto)
            ended = ended | (changed < TOLERANCE)
            if ended.all():
                break
        filled = 1.0 - weights.sum(axis=1)
        if not self.ahead:
            quiet = busy = quiet + busy
        normal = [each / np.maximum(each.sum(axis=1, keepdims=True), 1e-15) for each in (quiet, busy)]
        return normal[0], normal[1], weights, filled

    def _next(
        self, quiet: FloatArray, busy: FloatArray, usual: Spectrum, full_arrivals: Spectrum
    ) -> tuple[FloatArray, FloatArray]:
        """Return the work in the queue one step later than that of the arguments, which also have a sum of 1."""
        low, high = self._split(quiet)
        low_busy, high_busy = self._split(busy)
        if self.ahead:
            # What arrived during the step that ran as this one was composed.
            left = np.fft.rfft(high) * usual + np.fft.rfft(high_busy) * full_arrivals
            fresh = low.sum(axis=1)[:, None] * usual + low_busy.sum(axis=1)[:, None] * full_arrivals
        else:
            left = np.fft.rfft(high + high_busy) * full_arrivals
            fresh = (low + low_busy).sum(axis=1)[:, None] * usual
        after_full = np.maximum(np.fft.irfft(left, GRID), 0.0)
        following = np.maximum(np.fft.irfft(fresh, GRID), 0.0)
        whole = (after_full + following).sum(axis=1, keepdims=True)
        return following / whole, after_full / whole

    def _first_tokens(
        self, own: Spectrum, queue: FloatArray, lengths: FloatArray, time: FloatArray, usual: Spectrum, *, filled: bool
    ) -> Spectrum:
        """Return the spectrum of the time to first token of the requests that arrive in steps of some lengths.

        Args:
            own: Spectrum of the requests' own prompts.
            queue: Distribution of the work in the queue when such a step begins.
            lengths: Their lengths, shape (n, k).
            time: Share of the time in each, shape (n, k).
            usual: Spectrum of the work that arrives during any step.
            filled: Whether the steps are full.
        """
        low, high = self._split(queue)
        none, after_full = np.ones_like(usual), self._arrivals(self.full[:, None])[:, 0]
        # Time until the step with the own prompt, work before that prompt, and what arrives before its second step.
        if self.ahead:
            branches = [(np.fft.rfft(low), none, usual), (self.full_spectrum, np.fft.rfft(high), after_full)]
        elif filled:
            share = np.maximum(high.sum(axis=1, keepdims=True), 1e-15)
            branches = [(none, np.fft.rfft(high / share), after_full)]
        else:
            branches = [(none, none, after_full)]
        rest, whole_step = self._uniform(lengths), self._shifted(self.full / self.width)
        # Half of the other arrivals of the step came first.
        half = self._arrivals(lengths / 2.0)
        mine = half * (own * self.beside)[:, None]
        found = np.zeros_like(usual)
        for waited, left, later in branches:
            work = np.maximum(np.fft.irfft(mine * left[:, None], GRID), 0.0)
            done = self._capped(np.where(self.fits[:, None], work, 0.0), half)
            found = found + waited * np.einsum("nk,nkf->nf", time, rest * done)
            over = time[:, :, None] * self._over(work)
            share = over.sum(axis=2)
            pooled = np.einsum("nk,nkf->nf", share, rest) / np.maximum(share.sum(axis=1), 1e-15)[:, None]
            work = over.sum(axis=1)
            waited = waited * pooled
            behind = np.einsum("nk,nkf->nf", share, half) / np.maximum(share.sum(axis=1), 1e-15)[:, None] * later
            for _ in range(FOLDS):
                # Each cell ends on its own, so that it does not depend on the others.
                work = np.where(work.sum(axis=1, keepdims=True) < SELDOM, 0.0, work)
                if not work.any():
                    break
                waited = waited * whole_step
                done = self._capped(np.where(self.fits, work, 0.0)[:, None], behind[:, None])[:, 0]
                found = found + waited * done
                work, behind = self._over(work[:, None])[:, 0], behind * after_full
        return found

    def _arrivals(self, lengths: FloatArray) -> Spectrum:
        """Return the spectra of the work that arrives in times of shape (n, k), shape (n, k, frequencies)."""
        return np.asarray(np.exp(-(self.rate[:, None] * lengths)[:, :, None] * self.silent[:, None]))

    def _prompt(self, group: Group) -> FloatArray:
        """Return the distribution of a prompt's work, log-normal, shape (n, GRID)."""
        spread = np.sqrt(np.log1p(max(group.variance, 1e-6)))
        centre = np.log(group.length) - spread**2 / 2.0

        def short(points: FloatArray) -> FloatArray:
            z = (np.log(np.maximum(points, 1e-300)) - centre) / spread
            return np.asarray(points * normal_share(z) - group.length * normal_share(z - spread))

        return self._masses(short)[:, 0]

    def _uniform(self, lengths: FloatArray) -> Spectrum:
        """Return the spectra of what is left of steps, shape (n, k, frequencies), at a random time in them."""
        whole = lengths[:, :, None]

        def short(points: FloatArray) -> FloatArray:
            inside = np.minimum(points, whole)
            return np.asarray(inside**2 / (2.0 * whole) + points - inside)

        return np.asarray(np.fft.rfft(self._masses(short)))

    def _masses(self, short: Callable[[FloatArray], FloatArray]) -> FloatArray:
        """Return a distribution on the grid, each value split between its neighbours so that the mean is kept.

        Args:
            short: Integral of the distribution function from 0, from points of shape (n, 1, m) to (n, k, m).
        """
        points = (np.arange(GRID + 1) * self.width[:, None])[:, None]
        values = short(points)
        values[..., 0] = 0.0
        slopes = np.diff(values, axis=2) / self.width[:, None, None]
        density = np.maximum(np.diff(slopes, axis=2, prepend=0.0), 0.0)
        density[..., -1] += np.maximum(1.0 - density.sum(axis=2), 0.0)
        return density

    def _onto_nodes(self) -> FloatArray:
        """Return the shares with which points go to the lengths of steps, shape (n, GRID, NODES)."""
        apart = np.diff(self.nodes, axis=1)[:, None]
        rising = np.clip((self.points[:, :, None] - self.nodes[:, None, :-1]) / apart, 0.0, 1.0)
        one = np.ones_like(rising[:, :, :1])
        return np.asarray(np.concatenate([one, rising], axis=2) - np.concatenate([rising, 0.0 * one], axis=2))

    def _split(self, work: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the part of a distribution of work that fits into a step, and what is left of the other part."""
        return np.where(self.fits, work, 0.0), self._over(work[:, None])[:, 0]

    def _over(self, work: FloatArray) -> FloatArray:
        """Return the distribution of what full steps leave of work, shape (n, k, GRID)."""
        at = self.last[:, None] + 1 + np.arange(GRID)
        left = np.take_along_axis(work, np.minimum(at, GRID - 1)[:, None], axis=2)
        left = np.where((at < GRID)[:, None], left, 0.0)
        result = left * self.beyond[:, None]
        result[..., 1:] += left[..., :-1] * (1.0 - self.beyond[:, None])
        return np.asarray(result)

    def _capped(self, work: FloatArray, behind: Spectrum) -> Spectrum:
        """Return the spectrum of the work of a step that ends some work, with prompts behind it up to the room."""
        found = np.maximum(np.fft.irfft(np.fft.rfft(work) * behind, GRID), 0.0)
        fits = self.fits[:, None]
        more = np.where(fits, 0.0, found).sum(axis=2)
        found = np.where(fits, found, 0.0)
        found[self.rows, :, self.last] += more * (1.0 - self.beyond)
        found[self.rows, :, self.last + 1] += more * self.beyond
        return np.asarray(np.fft.rfft(found))

    def _shifted(self, places: FloatArray) -> Spectrum:
        """Return the spectrum of a constant, in points of the grid, shape (n,)."""
        whole = np.floor(places)
        turn = np.exp(-2j * np.pi / GRID * np.arange(GRID // 2 + 1))
        part = (places - whole)[:, None]
        return np.asarray(turn ** whole[:, None] * (1.0 - part + part * turn))


def _reach(loads: Loads, groups: Sequence[Group]) -> FloatArray:
    """Return a time, beyond two steps, that hardly any request waits for its first token, in mean prompts."""
    longest = max(group.length * np.exp(3.0 * np.sqrt(np.log1p(group.variance))) for group in groups)
    square = sum(group.share * group.length**2 * (1.0 + group.variance) for group in groups)
    mean = loads.step / (1.0 - loads.halted)
    # Mean square of a step with room for all, weighted by its length.
    found = loads.step**2 + 2.0 * loads.step * loads.halted * mean + loads.halted * mean * square * loads.clump
    met = found / (1.0 - loads.halted**2) / mean
    several = 1.0 + loads.step / loads.room
    return np.asarray(several * (longest + 5.0 * np.minimum(met, 2.0 * (loads.room + loads.step)) + loads.step))
