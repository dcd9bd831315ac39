"""Pictures of plans: what they show, and that files are whole, self-contained and in the page's own colours."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.cli.conftest import GPUS, POOLS, Run, Write, chat, model
from tests.unit.planner.conftest import ArithmeticPredictor

from energylens.api.parse import parse_llmdeployment
from energylens.cli.pictures.charts import plan_figure
from energylens.cli.pictures.colours import FILE
from energylens.cli.pictures.plan import Picture, picture
from energylens.cli.pictures.product_style import product_style
from energylens.data import find_gpu
from energylens.planner.inventory.file import snapshot_from_inventory
from energylens.planner.planning import problem_for
from energylens.planner.search.problem import Problem, Solution, solve
from energylens.planner.search.ranking import LATENCY_SHARE


def solved(**parts: Any) -> tuple[Problem, Solution]:
    deployment = parse_llmdeployment(chat(**parts), strict=True)
    snapshot = snapshot_from_inventory(POOLS, lambda name: find_gpu(name).product)
    problem = problem_for(deployment, model("70B"), snapshot, GPUS, ArithmeticPredictor(), None, None)
    return problem, solve(problem)


def drawn(**parts: Any) -> Picture:
    found = picture("chat", *solved(**parts))
    assert found is not None
    return found


def test_the_frontier_is_what_no_candidate_beats_in_both() -> None:
    _, solution = solved()
    found, rows = drawn(), solution.rows
    for panel, latency in zip(found.panels, (rows.itl_ms, rows.ttft_ms), strict=True):
        front = panel.frontier
        assert (np.diff(panel.latency_ms[front]) > 0).all()
        assert (np.diff(found.joules[front]) < 0).all()
        for i in front:
            faster = rows.sustainable & (latency < panel.latency_ms[i] / 1.01)
            cheaper = rows.joules_per_output_token < found.joules[i] * (1 - 1e-9)
            assert not (faster & cheaper).any()


def test_the_pick_and_the_objectives_are_those_of_the_plan() -> None:
    found = drawn()
    assert found.chosen is not None
    assert found.labels[found.chosen] == found.subtitle == "1 x NVIDIA-H200 TP2, max batch 256"
    assert found.allowed[found.chosen]
    assert [panel.limit_ms for panel in found.panels] == [30, 2000]
    itl = found.panels[0]
    assert itl.upper_ms == pytest.approx((1.0 + 0.1 * LATENCY_SHARE) * itl.latency_ms)
    assert (itl.upper_ms[found.allowed] <= 30).all()


def test_a_bound_on_tpot_has_a_panel_of_its_own() -> None:
    assert [panel.name for panel in drawn().panels] == ["ITL P50", "TTFT P50"]
    found = drawn(slo={"percentile": "P95", "tpotMilliseconds": 40})
    assert [panel.name for panel in found.panels] == ["ITL P95", "TPOT P95", "TTFT P95"]
    assert [panel.limit_ms for panel in found.panels] == [None, 40, None]
    assert found.chosen is not None
    tpot = found.panels[1]
    assert (tpot.upper_ms[found.allowed] <= 40).all()
    # A figure with both kinds of rows has places for the widest.
    assert len(plan_figure([drawn(), found], FILE).get_axes()) == 5


def test_without_a_plan_there_is_a_picture_and_without_a_candidate_none() -> None:
    found = drawn(slo={"percentile": "P50", "itlMilliseconds": 1})
    assert found.chosen is None
    assert found.subtitle == "no plan"
    assert not found.allowed.any()
    workload = {"inputTokens": 300, "outputTokens": 400, "requestsPerSecond": 10_000}
    assert picture("chat", *solved(workload=workload)) is None


def plotted(run: Run, write: Write, path: Path, *documents: object) -> None:
    asked = write("asked.yaml", list(documents))
    result = run("plan", "-f", asked, "--inventory", write("pools.yaml", POOLS), "--plot", path)
    assert result.exit_code == 0, result.output
    assert f"wrote {path}\n" in result.stderr


def test_a_png(arithmetic: Run, write: Write, tmp_path: Path) -> None:
    plotted(arithmetic, write, tmp_path / "plan.png", chat())
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_an_svg_has_every_deployment(arithmetic: Run, write: Write, tmp_path: Path) -> None:
    plotted(arithmetic, write, tmp_path / "plan.svg", chat("one"), chat("two"))
    assert ElementTree.parse(tmp_path / "plan.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_a_page_needs_nothing_else_and_has_its_own_colours(arithmetic: Run, write: Write, tmp_path: Path) -> None:
    plotted(arithmetic, write, tmp_path / "plan.html", chat("one"), chat("two", slo={"percentile": "P50"}))
    text = (tmp_path / "plan.html").read_text()
    assert set(re.findall(r'(?:src|href)="([^"#]+)"', text)) == set()
    assert "<script" not in text
    assert "@import" not in text
    assert text.count("<svg") == 4
    assert "var(--ink)" in text
    assert not re.search(r"#f[0-9a-f]{2}0d", text), "a stand-in for a colour is left"
    assert "<title>1 x NVIDIA-H200 TP2, max batch 256</title>" in text
    assert text.count('<tr class="pick">') == 2
    assert re.search(r'<td class="number" data-label="J/TOKEN">[0-9.]+</td>', text), "a phone shows no column heads"
    (made,) = re.findall(r"<footer>(.*)</footer>", text)
    assert re.fullmatch(
        r"Made 2026-01-01 00:00 UTC by energylens [0-9.]+, predictor arithmetic-1, from inventory pools.yaml: "
        r"3 nodes with GPUs \(8 H100-80GB-HBM3, 8 H200, 4 L40S\)\.",
        made,
    ), made


def test_a_product_has_one_colour_whatever_else_is_drawn(arithmetic: Run, write: Write, tmp_path: Path) -> None:
    colours = []
    for number, products in enumerate((["H200"], ["H100", "H200"], ["L40S", "H200"])):
        path = tmp_path / f"plan-{number}.svg"
        plotted(arithmetic, write, path, chat(hardware={"gpuProducts": products}))
        colours.append(FILE.series[product_style("NVIDIA-H200").colour] in path.read_text())
    assert colours == [True] * 3


def test_no_legend_lies_on_the_points() -> None:
    figure = plan_figure([drawn()])
    figure.draw_without_rendering()
    (part,) = figure.subfigs
    (legend,) = part.legends
    box = legend.get_window_extent()
    assert [axes.get_legend() for axes in part.axes] == [None, None]
    assert not any(box.overlaps(axes.get_window_extent()) for axes in part.axes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plan.pdf", "the name must end in .png, .svg, .html"),
        ("nowhere/plan.png", "No such file or directory"),
        ("nowhere/plan.html", "No such file or directory"),
    ],
)
def test_what_cannot_be_written_is_said(name: str, message: str, arithmetic: Run, write: Write, tmp_path: Path) -> None:
    asked, pools = write("asked.yaml", chat()), write("pools.yaml", POOLS)
    result = arithmetic("plan", "-f", asked, "--inventory", pools, "--plot", tmp_path / name)
    assert result.exit_code == 2
    assert result.stderr == f"Error: --plot {tmp_path / name}: {message}\n"


def test_nothing_to_draw_is_said(arithmetic: Run, write: Write, tmp_path: Path) -> None:
    asked = write("asked.yaml", chat(hardware={"gpuProducts": ["B200"]}))
    result = arithmetic("plan", "-f", asked, "--inventory", write("pools.yaml", POOLS), "--plot", tmp_path / "plan.png")
    assert result.exit_code == 2
    assert "no candidate can run the load" in result.stderr


def test_matplotlib_is_asked_for_before_planning(
    arithmetic: Run, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    result = arithmetic("plan", "-f", "nowhere.yaml", "--inventory", "nowhere.yaml", "--plot", tmp_path / "plan.png")
    assert result.exit_code == 2
    assert result.stderr == "Error: --plot needs matplotlib: pip install 'energylens[plot]'\n"
