"""The pages of `energylens ui`: every address, what cannot be read, and what a browser may ask for."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from tests.unit.api.objects import BUDGET, CLUSTER_BUDGET, DEPLOYMENT, changed
from tests.unit.cli.commands.test_status import LIVE

from energylens.api.llmdeployment import LLMDeployment
from energylens.api.parse import parse_energybudget
from energylens.cli.errors import InputError
from energylens.cli.inputs.rates import NO_RATES, Rates
from energylens.cli.main import cli
from energylens.cli.site.clusters import FileCluster
from energylens.cli.site.pages import Budget
from energylens.cli.site.server import SiteServer
from energylens.cli.site.site import NAVIGATION, PageAnswer, Site
from energylens.decide.preview import World


class Clock:
    def now(self) -> datetime:
        return datetime(2026, 1, 15, 12, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0


class Unreadable:
    """A cluster that nobody reaches."""

    text = "the live cluster"

    def deployments(self) -> list[LLMDeployment]:
        raise InputError("the API server does not answer: <refused>")

    def budgets(self) -> list[Budget]:
        raise AssertionError("not reached")

    def world(self, deployments: Sequence[LLMDeployment]) -> World:
        raise AssertionError("not reached")

    def audit_page(self, rates: Rates) -> str:
        raise InputError("no counters")


NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "node-0", "labels": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}},
    "status": {
        "allocatable": {"nvidia.com/gpu": "8"},
        "capacity": {"nvidia.com/gpu": "8"},
        "conditions": [{"type": "Ready", "status": "True"}],
    },
}
SPENT = {
    "observedGeneration": 1,
    "periodStart": "2026-01-01T00:00:00Z",
    "resetTime": "2026-02-01T00:00:00Z",
    "used": "1200/5000 Wh (24 %)",
    "usedWattHours": 1200,
    "remainingWattHours": 3800,
    "remaining": "3800 Wh",
    "forecast": "lasts",
    "memberCount": 3,
    "members": [{"namespace": "team-a", "name": "llama", "priority": 0, "committedPowerWatts": 2100}],
    "ledger": [
        {
            "uid": "a",
            "namespace": "team-a",
            "name": "llama",
            "measuredJoules": 1,
            "accountedUntil": "2026-01-15T00:00:00Z",
        }
    ],
}
MEASURED = changed(
    LIVE,
    {
        "metadata.name": "measured",
        "status.conditions": [
            {"type": "EnergyMetricsAvailable", "status": "True", "reason": "Measured", "message": ""}
        ],
    },
)
LIMITED = changed(BUDGET, {"metadata.namespace": "team-a", "spec.energyWattHours": 5000, "status": SPENT})
FRESH = changed(DEPLOYMENT, {"metadata.namespace": "team-b", "metadata.name": "new"})


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("site") / "cluster.yaml"
    budget = parse_energybudget(LIMITED, strict=False).model_dump(mode="json", by_alias=True, exclude_none=True)
    path.write_text(yaml.safe_dump_all([NODE, LIVE, MEASURED, FRESH, budget, CLUSTER_BUDGET]))
    return path


@pytest.fixture(scope="module")
def site(inventory: Path) -> Site:
    return Site(FileCluster(inventory), Rates(price=0.2), Clock())


def links(html: str) -> set[str]:
    return set(re.findall(r'<a [^>]*?href="([^"]*)"', html))


def test_every_link_leads_to_a_page(site: Site) -> None:
    seen: dict[str, PageAnswer] = {}
    waiting = {"/"}
    while waiting:
        path = waiting.pop()
        seen[path] = site.answer(path)
        waiting |= links(seen[path].html) - set(seen)
    assert {entry.href for entry in NAVIGATION} <= set(seen)
    assert {"/deployments/team-a/llama", "/plan/team-a/llama", "/plan/team-b/new"} <= set(seen)
    # A file has no counters, which the page of the audit says.
    assert {path for path, answer in seen.items() if answer.status != 200} == {"/audit"}
    assert "--prometheus" in seen["/audit"].html


def test_every_page_says_when_and_from_what_it_was_made(site: Site) -> None:
    for path in ("/", "/budgets", "/drift", "/audit", "/deployments/team-a/llama", "/nowhere"):
        assert "Made 2026-01-15 12:00 UTC" in site.answer(path).html, path
        assert "inventory cluster.yaml" in site.answer(path).html
    for path in ("/", "/budgets", "/drift", "/deployments/team-a/llama"):
        assert "predictor 1+fixed, from inventory" in site.answer(path).html, path


def test_the_page_that_is_shown_is_marked(site: Site) -> None:
    assert re.findall(r'aria-current="page" href="([^"]*)"', site.answer("/drift").html) == ["/drift"]
    assert "aria-current=" not in site.answer("/nowhere").html


def test_the_overview_has_plans_measurements_and_budgets(site: Site) -> None:
    html = site.answer("/").html
    plan, totals = ("2 x TP4 on H200", "2,100", "2,000", "0.412", "0.392", "PodsNotReady"), ("0 of 3", "4.2 kW", "613")
    for text in (*plan, *totals, "24 %"):
        assert text in html, text


def test_a_deployment_shows_its_status(site: Site) -> None:
    html = site.answer("/deployments/team-a/llama").html
    for text in ("J per output token", "+5 %", "PodsNotReady", "Objectives", "vLLM 0.33.0 was not measured", "Cost"):
        assert text in html, text


def test_a_deployment_that_nobody_reconciled_says_so(site: Site) -> None:
    html = site.answer("/deployments/team-b/new").html
    assert "The operator has not reconciled it yet." in html
    assert '<p class="bad">Outdated: ' in html


def test_budgets_have_their_burn_down_and_members(site: Site) -> None:
    html = site.answer("/budgets").html
    assert html.count('<svg aria-label="Energy that is left') == 1
    assert "team-a/llama" in html
    assert "and 2 more" in html


def test_drift_has_a_chart_for_each_figure_that_was_measured(site: Site) -> None:
    html = site.answer("/drift").html
    assert html.count('<svg aria-label="Predicted against measured') == 4
    assert "NotPlanned" in html


def test_a_name_that_is_not_there_is_not_found_and_stays_text(site: Site) -> None:
    answer = site.answer("/deployments/team-a/%3Cscript%3E")
    assert answer.status == 404
    assert "&lt;script&gt;" in answer.html
    assert "<script>" not in answer.html
    for path in ("/plan/team-a/none", "/deployments/team-a", "/fleet/", "//", "/plan/a/b/c"):
        assert site.answer(path).status == 404, path


def test_a_cluster_that_cannot_be_read_is_a_page_with_the_reason() -> None:
    site = Site(Unreadable(), NO_RATES, Clock())
    for path in ("/", "/fleet", "/budgets", "/drift", "/deployments/a/b", "/plan/a/b"):
        answer = site.answer(path)
        assert answer.status == 502, path
        assert "the API server does not answer: &lt;refused&gt;" in answer.html


def test_a_file_without_deployments_has_pages_too(tmp_path: Path) -> None:
    path = tmp_path / "nodes.yaml"
    path.write_text(yaml.safe_dump(NODE))
    site = Site(FileCluster(path), NO_RATES, Clock())
    assert "There is no LLMDeployment" in site.answer("/").html
    assert "There is no budget" in site.answer("/budgets").html
    assert "There is no LLMDeployment" in site.answer("/drift").html
    assert site.answer("/fleet").status == 502


@pytest.fixture
def server(site: Site) -> Iterator[SiteServer]:
    with SiteServer(site, 0) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def asked(server: SiteServer, method: str = "GET", path: str = "/", **headers: str) -> tuple[int, Any, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def test_a_browser_gets_a_page_without_scripts(server: SiteServer) -> None:
    status, headers, content = asked(server)
    assert status == 200
    assert content.startswith(b"<!doctype html>")
    assert headers["Content-Security-Policy"].startswith("default-src 'none';")
    assert headers["Cache-Control"] == "no-store"
    assert asked(server, path="/?a=1")[0] == 200


def test_only_reading_is_possible(server: SiteServer) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert asked(server, method)[0] == 501
    status, headers, content = asked(server, "HEAD")
    assert (status, content) == (200, b"")
    assert int(headers["Content-Length"]) > 1000


def test_a_page_of_another_site_does_not_get_at_the_cluster(server: SiteServer) -> None:
    port = server.server_address[1]
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", "127.0.0.1:1"):
        status, _, content = asked(server, Host=host)
        assert status == 421, host
        assert b"team-a" not in content
    assert asked(server, Host=f"localhost:{port}")[0] == 200


def test_it_listens_on_the_loopback_address_only(server: SiteServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_ctrl_c_ends_it(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(server: SiteServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SiteServer, "serve_forever", interrupted)
    result = CliRunner().invoke(cli, ["ui", "--inventory", str(inventory), "--port", "0"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert "shows inventory cluster.yaml; Ctrl-C ends it" in result.stderr


def test_bad_options_are_one_line(inventory: Path, server: SiteServer) -> None:
    taken = str(server.server_address[1])
    for arguments, words in (
        (["--inventory", str(inventory), "--port", taken], ("--port", taken)),
        (["--inventory", str(inventory), "-n", "a"], ("--inventory",)),
        (["--inventory", "/no/such/file"], ("/no/such/file",)),
    ):
        result = CliRunner().invoke(cli, ["ui", *arguments])
        assert result.exit_code == 2, result.output
        assert all(word in result.stderr for word in words), result.stderr
        assert len(result.stderr.splitlines()) == 1
