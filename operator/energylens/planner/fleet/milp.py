"""A mixed-integer program that is built row by row and solved by HiGHS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from energylens.predictor.types import FloatArray

INFINITY = float("inf")


class SolverError(RuntimeError):
    """HiGHS neither found an optimum nor proved that there is none."""


class Program:
    """A mixed-integer program that is built row by row; variables are at least 0."""

    def __init__(self) -> None:
        """Create a program without variables."""
        self._costs: list[float] = []
        self._upper: list[float] = []
        self._integral: list[int] = []
        self._rows: list[Mapping[int, float]] = []
        self._low: list[float] = []
        self._high: list[float] = []

    def add_variables(
        self, costs: Sequence[float], *, upper: float = INFINITY, integral: bool = True
    ) -> tuple[int, ...]:
        """Add one variable for each cost; return their columns."""
        start = len(self._costs)
        self._costs += costs
        self._upper += [upper] * len(costs)
        self._integral += [int(integral)] * len(costs)
        return tuple(range(start, len(self._costs)))

    def add_row(self, coefficients: Mapping[int, float], low: float, high: float) -> None:
        """Constrain a sum of variables to two bounds; infinite bounds do not constrain."""
        self._rows.append(coefficients)
        self._low.append(low)
        self._high.append(high)

    def solve(self) -> FloatArray | None:
        """Return the optimum, one value per column, or None if nothing is feasible.

        Raises:
            SolverError: HiGHS stopped for another reason.
        """
        # The import takes 0.3 s, and few commands need it.
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array

        if not self._costs:
            return np.zeros(0)
        lengths = [len(row) for row in self._rows]
        matrix = csr_array(
            (
                np.fromiter((v for row in self._rows for v in row.values()), dtype=np.float64, count=sum(lengths)),
                np.fromiter((c for row in self._rows for c in row), dtype=np.int32, count=sum(lengths)),
                np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
            ),
            shape=(len(self._rows), len(self._costs)),
        )
        answer = milp(
            np.asarray(self._costs),
            integrality=np.asarray(self._integral),
            bounds=Bounds(0.0, np.asarray(self._upper)),
            constraints=LinearConstraint(matrix, np.asarray(self._low), np.asarray(self._high)),
            options={"mip_rel_gap": 0.0},
        )
        if answer.status == 2:
            return None
        if answer.status != 0:
            raise SolverError(f"HiGHS stopped without an optimum: {answer.message}")
        values: FloatArray = np.asarray(answer.x, dtype=np.float64)
        return values
