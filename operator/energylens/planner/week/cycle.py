"""The cheapest numbers of replicas over a cycle of spans, in which each added replica costs a start. Exact."""

from __future__ import annotations

import numpy as np

from energylens.predictor.types import FloatArray, IntArray
from energylens.records import dataclass


@dataclass(frozen=True)
class Cycle:
    """The costs of one layout with each number of replicas."""

    counts: IntArray
    """Numbers of replicas, ascending, shape (r,)."""
    costs: FloatArray
    """Cost of each span with each number, shape (s, r); infinite if a number is impossible."""
    start: float
    """Cost of each added replica."""

    def cheapest(self) -> float:
        """Return the least cost of the cycle; infinite if some span has no possible number.

        Dynamic programming over the spans, for every number of replicas in the first span at once: the cycle must end
        with the number that it begins with. Within a span the number never changes, since every change may be moved to
        an end of the span without a higher cost.
        """
        return float(np.min(self._closed(), initial=np.inf))

    def path(self) -> IntArray:
        """Return the index of the number of replicas of each span in the cheapest cycle, shape (s,).

        Raises:
            ValueError: Some span has no possible number.
        """
        closed = self._closed()
        first = int(np.argmin(closed))
        if not np.isfinite(closed[first]):
            raise ValueError("a span has no possible number of replicas")
        values = np.full((len(self.costs), self.counts.size), np.inf)
        values[0, first] = self.costs[0, first]
        for span in range(1, len(self.costs)):
            values[span] = self._moved(values[span - 1][None])[0] + self.costs[span]
        found = np.empty(len(self.costs), dtype=np.int64)
        following = first
        for span in range(len(self.costs) - 1, -1, -1):
            added = np.maximum(0, self.counts[following] - self.counts)
            following = int(np.argmin(values[span] + self.start * added))
            found[span] = following
        return found

    def starts(self, path: IntArray) -> int:
        """Return the number of replica starts in a cycle; ``path`` is from :meth:`path`."""
        counts = self.counts[path]
        return int(np.maximum(0, counts - np.roll(counts, 1)).sum())

    def constant(self) -> FloatArray:
        """Return the cost of the cycle with each constant number of replicas, shape (r,)."""
        return np.asarray(self.costs.sum(axis=0))

    def _closed(self) -> FloatArray:
        """Return the least cost of a cycle for each number of replicas at its beginning, shape (r,)."""
        size = self.counts.size
        values = np.where(np.eye(size, dtype=bool), self.costs[0][:, None], np.inf)
        for costs in self.costs[1:]:
            values = self._moved(values) + costs
        return np.asarray(np.diagonal(self._moved(values)))

    def _moved(self, values: FloatArray) -> FloatArray:
        """Return the least cost of reaching each number from any other, shape (k, r) as ``values``."""
        fewer = np.minimum.accumulate(values[:, ::-1], axis=1)[:, ::-1]
        paid = self.start * self.counts
        more = np.minimum.accumulate(values - paid, axis=1) + paid
        return np.asarray(np.minimum(fewer, more))
