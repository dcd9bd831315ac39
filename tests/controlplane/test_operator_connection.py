"""Dead connections, replaced credentials, requested pauses, changed definitions, and a compacted history."""

from __future__ import annotations

import base64
import copy
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.api_client import APPLY, ApiClient
from tests.support.compaction import compact
from tests.support.faulty_operator import SYSTEM, FaultyOperator, operator_behind_proxy
from tests.support.faulty_proxy import Answer, Events, Hold
from tests.support.operator_cluster import ROOT, llmdeployment
from tests.support.spaces import Space, replicas, space

from energylens.clock import SystemClock
from energylens.cluster.resources import DEPLOYMENT, LLM_DEPLOYMENT
from energylens_dev.devcluster import RunningCluster, eventually
from energylens_dev.devcluster.certificates import Authority
from energylens_dev.devcluster.kubeconfig import write_kubeconfig

LEASE_SECONDS = 90.0
"""Longer than the API server takes to start again, so that the operator lives through that."""
SILENCE_SECONDS = 61.0
"""More than the minute between two bookmarks, which is the least that the settings allow."""
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture(scope="module")
def faulty(chart: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyOperator]:
    folder = tmp_path_factory.mktemp("connection")
    settings = {"leaseSeconds": LEASE_SECONDS, "resyncSeconds": 600, "watchSilenceSeconds": SILENCE_SECONDS}
    with operator_behind_proxy(chart, folder, **settings) as found:
        yield found


@pytest.fixture
def place(faulty: FaultyOperator, api: ApiClient) -> Iterator[Space]:
    """A namespace with a deployment that runs; afterwards nothing is broken any more."""
    with space(api, "connection") as found:
        try:
            scaled(found, 1)
            yield found
        finally:
            faulty.proxy.heal()


def scaled(place: Space, count: int, seconds: float = 120.0) -> None:
    """Ask for so many replicas, and wait until they run."""
    place.apply(llmdeployment(planning=replicas(count)))
    runs(place, count, seconds)


def runs(place: Space, count: int, seconds: float = 120.0) -> None:
    def check() -> bool:
        body = place.api.get(DEPLOYMENT, place.namespace, "llama")
        assert body is not None
        return body["spec"]["replicas"] == body["status"].get("readyReplicas", 0) == count

    eventually(check, seconds)


def of(resource: str) -> Any:
    """Match the watch of a kind."""
    return lambda call: call.verb == "watch" and call.resource == resource


def test_an_operator_with_a_dead_watch_is_started_again(faulty: FaultyOperator, place: Space) -> None:
    starts = faulty.starts
    # Bookmarks of the server come each minute; the proxy's tell the watches that live.
    faulty.proxy.bookmark_seconds = 2.0
    faulty.proxy.cut_watches()
    dead = Events(of(LLM_DEPLOYMENT.plural), silent=True)
    try:
        faulty.proxy.events.append(dead)
        place.apply(llmdeployment(planning=replicas(2)))
        eventually(lambda: faulty.starts > starts, 180)
        assert dead.fired, "nothing was kept back"
        (said,) = faulty.unhealthy
        assert f"the watch of {LLM_DEPLOYMENT.path()} has brought nothing for" in said
        faulty.proxy.heal()
        runs(place, 2)
        eventually(lambda: faulty.probe("healthz") == "200 ok")
    finally:
        faulty.proxy.bookmark_seconds = 0.0


def test_a_pause_that_the_server_asks_for_is_kept(faulty: FaultyOperator, place: Space) -> None:
    refused = Answer(
        lambda call: call.is_write and call.namespace == place.namespace and call.resource == LLM_DEPLOYMENT.plural,
        times=1,
        status=429,
        reason="TooManyRequests",
        headers={"Retry-After": "4"},
    )
    faulty.proxy.faults.append(refused)
    scaled(place, 2)
    eventually(lambda: refused.seen >= 2)
    first, second = refused.at[:2]
    assert second - first >= 4.0


def operator_kubeconfig(faulty: FaultyOperator) -> Path:
    (option,) = [part for part in faulty.command if part.startswith("--kubeconfig=")]
    return Path(option.partition("=")[2])


def test_an_expired_token_is_replaced_by_the_one_that_the_kubeconfig_has_now(
    chart: RunningCluster, faulty: FaultyOperator, place: Space
) -> None:
    inside = chart.client().within(SYSTEM)

    def token(holder: str) -> str:
        inside.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": holder}})
        secret = inside.get("secret", holder)
        assert secret is not None
        bound = (f"--bound-object-name={holder}", f"--bound-object-uid={secret['metadata']['uid']}")
        return inside.run("create", "token", "energylens", "--bound-object-kind=Secret", *bound).strip()

    def written(user: dict[str, str]) -> None:
        config["users"][0]["user"] = user
        write_kubeconfig(path, config)

    path = operator_kubeconfig(faulty)
    config = yaml.safe_load(path.read_text())
    before = copy.deepcopy(config["users"][0]["user"])
    try:
        written({"token": token("first")})
        faulty.restart()
        starts = faulty.starts
        scaled(place, 2)
        written({"token": token("second")})
        faulty.proxy.statuses.clear()
        # With it goes the token that is bound to it; the server remembers good tokens for ten seconds.
        inside.run("delete", "secret", "first")
        eventually(lambda: faulty.proxy.statuses[401] > 0)
        faulty.proxy.cut_watches()
        scaled(place, 1)
        assert faulty.starts == starts, "only a new process could go on"
        eventually(lambda: faulty.probe("readyz") == "200 ok")
    finally:
        written(before)
        faulty.restart()
        inside.run("delete", "secret", "first", "second", "--ignore-not-found")


def test_a_server_certificate_of_another_authority_is_trusted_once_the_kubeconfig_names_it(
    chart: RunningCluster, faulty: FaultyOperator, place: Space, tmp_path: Path
) -> None:
    starts, path = faulty.starts, operator_kubeconfig(faulty)
    config = yaml.safe_load(path.read_text())
    cluster = config["clusters"][0]["cluster"]
    former = cluster["certificate-authority-data"]
    authority = Authority(tmp_path / "authority", SystemClock())
    old = Authority(chart.directory / "pki", SystemClock())
    tls = faulty.proxy.tls
    assert isinstance(tls, ssl.SSLContext)

    def rotated(issuer: Authority, trusted: str) -> None:
        tls.load_cert_chain(*issuer.issue("faulty-proxy", "faulty-proxy", hosts=["127.0.0.1"]))
        faulty.proxy.cut_connections()
        cluster["certificate-authority-data"] = trusted
        write_kubeconfig(path, config)

    try:
        rotated(authority, base64.b64encode(authority.certificate_file.read_bytes()).decode())
        scaled(place, 2)
        eventually(lambda: faulty.probe("readyz") == "200 ok")
    finally:
        rotated(old, former)
    scaled(place, 1)
    assert faulty.starts == starts, "only a new process could go on"


def test_a_definition_may_be_upgraded_under_a_running_operator(
    faulty: FaultyOperator, place: Space, api: ApiClient
) -> None:
    starts = faulty.starts
    manifest = yaml.safe_load((ROOT / "crds" / "llmdeployments.yaml").read_text())
    path = f"{DEFINITIONS}/{manifest['metadata']['name']}"
    upgraded = copy.deepcopy(manifest)
    (version,) = upgraded["spec"]["versions"]
    version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["later"] = {"type": "string"}
    upgraded["spec"]["versions"].append({**copy.deepcopy(version), "name": "v1alpha2", "storage": False})

    def served(version: str) -> bool:
        known = api.request("GET", f"/apis/{LLM_DEPLOYMENT.group}")["versions"]
        return version in [entry["version"] for entry in known]

    try:
        api.request("PATCH", f"{path}?fieldManager=upgrade&force=true", upgraded, APPLY)
        eventually(lambda: served("v1alpha2"))
        later = llmdeployment(planning=replicas(2), later="a field that this operator does not know")
        place.apply(later)
        runs(place, 2)
    finally:
        api.request("PATCH", f"{path}?fieldManager=upgrade&force=true", manifest, APPLY)
        eventually(lambda: not served("v1alpha2"))
    scaled(place, 1)
    assert faulty.starts == starts, "only a new process could go on"


def test_a_change_whose_watch_event_was_compacted_is_found_by_listing_again(
    chart: RunningCluster, faulty: FaultyOperator, place: Space
) -> None:
    starts = faulty.starts
    held = Hold(of(LLM_DEPLOYMENT.plural))
    faulty.proxy.faults.append(held)
    try:
        faulty.proxy.cut_watches()
        eventually(lambda: held.fired)
        place.apply(llmdeployment(planning=replicas(2)))
        faulty.proxy.statuses.clear()
        compact(chart)
    finally:
        faulty.proxy.release(held)
    eventually(lambda: faulty.proxy.statuses[410] > 0)
    runs(place, 2)
    assert faulty.starts == starts, "only a new process could go on"
