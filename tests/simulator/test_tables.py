"""The tables of docs/accuracy.md from cases that nobody serves here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.simulator.compare import Case, Figures, Outcome, StepTable
from tests.simulator.tables import PAGE, TABLES, Row, TablesError, beyond, cases, digest, errors, served, with_tables

FIGURES = ("throughput", "running", *(f"{part} {level}" for part in ("ttft", "itl") for level in ("p50", "p95", "p99")))


def row(variant: str, case: Case, **off: float) -> Row:
    """Return a case all of whose figures are predicted right, but for those that are off by a factor."""
    real = dict.fromkeys(FIGURES, 200.0)
    errors = {name.replace("_", " "): factor for name, factor in off.items()}
    return Row(variant, case, Figures({name: 200.0 * errors.get(name, 1.0) for name in real}, real, {"ttft p95": 0.04}))


def rows(**off: float) -> list[Row]:
    """Return all cases, of which the first is off."""
    (variant, first), *others = cases()
    return [row(variant, first, **off), *(row(*each) for each in others)]


def test_the_page_has_every_table_and_writing_it_again_changes_nothing() -> None:
    page = with_tables(PAGE.read_text(encoding="utf-8"), rows(ttft_p95=1.25))
    assert with_tables(page, rows(ttft_p95=1.25)) == page
    assert page.count("| TTFT P95 | 250 / 200 | +25 | 4 |") == 1


def test_percentiles_beyond_the_aim_are_listed_with_the_largest_error_first() -> None:
    found = beyond(rows(ttft_p95=1.25, itl_p99=0.5, ttft_p50=1.09))
    assert [line.split(" | ")[1:] for line in found[2:]] == [
        ["ITL P99", "100 / 200", "-50", "- |"],
        ["TTFT P95", "250 / 200", "+25", "4 |"],
    ]


def test_errors_are_means_and_the_largest_by_variant_and_load() -> None:
    found = errors(rows(ttft_p95=1.25, running=0.5))
    first = next(line for line in found if line.startswith("| Poisson arrivals, 50 % "))
    assert first == (
        "| Poisson arrivals, 50 % | 5 | 0 (0) | 10 (50) | 0 (0) / 5 (25) / 0 (0) | 0 (0) / 0 (0) / 0 (0) "
        "| 1 of 15 + 0 of 15 |"
    )
    assert found[-1].startswith(f"| all | {len(list(cases()))} |")


def test_a_page_without_a_table_is_refused() -> None:
    for name in TABLES:
        page = PAGE.read_text(encoding="utf-8").replace(f"<!-- serving: {name} -->", "")
        with pytest.raises(TablesError, match=f"<!-- serving: {name} -->"):
            with_tables(page, rows())


def test_a_case_is_served_again_if_its_rate_steps_or_requests_change(tmp_path: Path) -> None:
    case, steps = next(cases())[1], StepTable(*(np.arange(3.0) for _ in range(3)))
    key = digest(case, 2.0, steps)
    assert digest(case, 2.0, StepTable(*(np.arange(3.0) for _ in range(3)))) == key
    others = {
        digest(case, 2.1, steps),
        digest(replace(case, requests=9), 2.0, steps),
        digest(case, 2.0, replace(steps, slope=np.arange(3.0) + 1e-9)),
    }
    assert len({key, *others}) == 4
    levels = {0.5: 1.0, 0.95: 2.0, 0.99: 3.0}
    outcome = Outcome(levels, levels, levels, levels, 4.0, 1.0, levels)
    kept = tmp_path / "served"
    assert served(kept) == {}
    kept.write_text(json.dumps({"case": case.name, "digest": key, "outcome": vars(outcome)}) + "\n")
    assert served(kept) == {key: outcome}
