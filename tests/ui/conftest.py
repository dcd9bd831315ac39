"""A site with every kind of page, and a real Chromium to look at it."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.audit_cluster import Served, matrix, node, pod
from tests.support.loopback import serving
from tests.unit.api.objects import BUDGET, CLUSTER_BUDGET, DEPLOYMENT, changed
from tests.unit.cli.commands.test_status import LIVE
from tests.unit.cli.site.test_site import LIMITED, MEASURED, NODE, Clock

from energylens.api.parse import parse_energybudget
from energylens.audit.assessment import AuditOptions
from energylens.cli.inputs.audit import assessed, audited_file, hosts_of, served, telemetry_of_prometheus
from energylens.cli.inputs.rates import Rates
from energylens.cli.pictures.audit_page import audit_page
from energylens.cli.site.clusters import FileCluster
from energylens.cli.site.server import SiteServer
from energylens.cli.site.site import Site
from energylens.measure.prometheus_http import Access

CHROMIUM = next(
    filter(None, [os.environ.get("CHROMIUM"), *map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))]),
    None,
)
IMAGE = "vllm/vllm-openai:v0.24.0"
SERVED = (
    node("node-0"),
    node("node-1"),
    pod("chat-5d9f-a", {"image": IMAGE, "args": ["--model=Qwen/Qwen3-8B", "-tp", "8"]}, gpus=8),
    pod("old-7c-a", {"image": IMAGE, "args": ["--model=Qwen/Qwen3-8B"]}, host="node-1", owner=("ReplicaSet", "old-7c")),
    pod("train", {"image": "train:1", "command": ["train"]}, host="node-1", owner=("Job", "train"), namespace="other"),
)
LOADS = (
    Served("chat-5d9f-a", gpus=8, watts_per_gpu=150.0),
    Served("old-7c-a", requests_per_second=0.0, watts_per_gpu=120.0),
)


class AuditedCluster(FileCluster):
    """A cluster in files whose counters a Prometheus has."""

    inventory: Path
    prometheus: Access

    def audit_page(self, rates: Rates) -> str:
        """Return the page as the live cluster makes it."""
        audited = audited_file(self.inventory)
        _, models = served(audited, {}, self.text)
        telemetry = telemetry_of_prometheus(self.prometheus, 3600.0, audited)
        answers = assessed(models, audited, telemetry, AuditOptions({}, 0))
        hosts, unknown = hosts_of(audited, telemetry)
        failures = (*telemetry.failures, *unknown)
        return audit_page(answers, rates, telemetry.source, failures, "Made by a test", hosts)


@pytest.fixture(scope="session")
def prometheus() -> Iterator[Access]:
    """Yield a Prometheus on loopback with an hour of counters and a meter of node-0."""
    answer: dict[str, Any] = matrix(LOADS)
    times = [time for time, _ in answer["data"]["result"][0]["values"]]
    labels = {"__name__": "kepler_platform_watts", "node_name": "node-0"}
    answer["data"]["result"].append({"metric": labels, "values": [[time, "3200"] for time in times]})
    with serving(lambda *_: (200, json.dumps(answer).encode(), {})) as url:
        yield Access(url)


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory, prometheus: Access) -> Iterator[str]:
    """Yield the address of a site with deployments, budgets, a fleet, drift and an audit."""
    folder = tmp_path_factory.mktemp("ui")
    budget = parse_energybudget(LIMITED, strict=False).model_dump(mode="json", by_alias=True, exclude_none=True)
    name = "a-name-of-52-characters-" + 14 * "ab"
    long = changed(DEPLOYMENT, {"metadata.namespace": "team-b", "metadata.name": name})
    bodies = [NODE, LIVE, MEASURED, long, budget, changed(BUDGET, {"metadata.namespace": "team-b"}), CLUSTER_BUDGET]
    (folder / "cluster.yaml").write_text(yaml.safe_dump_all(bodies))
    (folder / "served.json").write_text(json.dumps({"kind": "List", "items": SERVED}))
    cluster = AuditedCluster(folder / "cluster.yaml")
    # The dataclass of a file's cluster is frozen.
    object.__setattr__(cluster, "inventory", folder / "served.json")
    object.__setattr__(cluster, "prometheus", prometheus)
    site = Site(cluster, Rates(price=0.2, pue=1.3), Clock())
    # Each page is looked at in a dozen ways, and making one takes up to a second.
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(site, "answer", cache(site.answer))
    server = SiteServer(site, 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server.url.rstrip("/")
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Yield a Chromium of this machine; tests are skipped without one, and nothing is downloaded.

    Playwright keeps an event loop running in this thread, so that it must end before tests of other modules, which have
    loops of their own.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (make ui-test)")
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH, and CHROMIUM is not set")
    with sync_api.sync_playwright() as playwright:
        # The sandbox refuses to start for root, as which containers run.
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()
