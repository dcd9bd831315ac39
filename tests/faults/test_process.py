"""The process as a whole: it runs as a user without a name, ends with a code when it must, and its probes tell why."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import pwd
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import pytest
from click.testing import CliRunner
from tests.support.api_server import ApiServer, api_server, error_event
from tests.support.faulty_proxy import Cut, Events, faulty_proxy

from energylens.cli.commands.operator import operator as command
from energylens.clock import SystemClock
from energylens.cluster.connecting import connect
from energylens.controller import acting, arrival, process, runner
from energylens.controller.acting import Acting
from energylens.controller.endpoints.http import listen
from energylens.controller.options import Options
from energylens.controller.runner import EndedError, Operator
from energylens.controller.settings import Settings
from energylens.controller.watching import handlers, kinds, rights, sweep
from energylens.controller.watching.sweep import Sweeper
from energylens.measure.scrape import HttpScraper
from energylens_dev.devcluster.ports import free_port

WATCHED = {"llmdeployments", "energybudgets", "clusterenergybudgets", "namespaces", "nodes", "pods", "deployments"}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once, and look for kinds at once."""
    monkeypatch.setattr(acting, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(process, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(kinds, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(acting, "KIND_CHECK_SECONDS", 0.05)
    monkeypatch.setattr(handlers, "ERROR_BACKOFFS", (0.01,))

    def lost(code: int) -> None:
        raise AssertionError(f"the lease is lost, code {code}")

    monkeypatch.setattr(os, "_exit", lost)


@dataclass
class Running:
    """An operator that runs, and its probes."""

    task: asyncio.Task[None]
    port: int
    http: aiohttp.ClientSession

    async def probe(self, name: str) -> str:
        """Return what a probe says: ``200 ok``."""
        try:
            async with self.http.get(f"http://127.0.0.1:{self.port}/{name}") as response:
                return f"{response.status} {(await response.text()).strip()}"
        except aiohttp.ClientConnectionError:
            return ""

    async def until(self, holds: Callable[[str], bool], probe: str = "readyz") -> str:
        """Wait until a probe says something; return it."""
        said = ""
        # Only a failure waits so long: the real HTTP server and kopf share a busy machine with others.
        async with asyncio.timeout(120):
            while not holds(said := await self.probe(probe)):
                if self.task.done():
                    self.task.result()
                await asyncio.sleep(0.02)
        return said


@asynccontextmanager
async def running(
    server: ApiServer, folder: Path, monkeypatch: pytest.MonkeyPatch, **given: float
) -> AsyncIterator[Running]:
    """Run an operator; ``given`` are settings of it, with no check of their values."""
    path, port = server.kubeconfig(folder), free_port()
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setenv("POD_NAME", "operator-0")
    # However slow this machine is, the lease does not run out.
    settings = Settings(workers=1, lease_seconds=600, lease_renew_seconds=0.1).model_copy(update=given)
    options = Options(path, port, "127.0.0.1", (), "system", settings)
    clock = SystemClock()
    async with await connect(path) as cluster, HttpScraper(clock) as scraper, aiohttp.ClientSession() as http:
        operator = Operator(options, cluster, scraper, clock)
        cluster.on_renewal = operator.log_in_again
        task = asyncio.create_task(operator.run())
        try:
            yield Running(task, port, http)
        finally:
            operator._stop.set()
            await asyncio.wait({task})


async def test_it_runs_as_a_user_that_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: Any) -> Any:
        raise KeyError("getpwuid(): uid not found: 65532")

    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    with api_server() as server:
        async with running(server, tmp_path, monkeypatch) as operator:
            await operator.until(lambda said: said == "200 ok" and set(server.watched) >= WATCHED)
            assert server.lease is not None
            assert server.lease["spec"]["holderIdentity"] == "operator-0"
    assert server.lease["spec"]["holderIdentity"] == ""


async def test_a_lease_that_cannot_be_read_shows_in_readiness_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with api_server(refused={("GET", "leases"): 403}) as server:
        async with running(server, tmp_path, monkeypatch) as operator:
            said = await operator.until(lambda said: said.startswith("503"))
            assert "the lease system/energylens-operator: GET " in said
            assert "403 leases is forbidden" in said
            assert await operator.probe("healthz") == "200 ok"
            server.refused[("GET", "leases")] = 401
            await operator.until(lambda said: " 401 " in said)
            server.refused.clear()
            await operator.until(lambda said: said == "200 ok")


@pytest.mark.parametrize("leading", [True, False])
async def test_a_right_to_write_that_is_missing_shows_in_readiness_also_of_one_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leading: bool
) -> None:
    held = {"holderIdentity": "another", "leaseDurationSeconds": 600}
    lease = None if leading else {"metadata": {"name": "x", "resourceVersion": "1"}, "spec": held}
    monkeypatch.setattr(rights, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(rights, "LOOK_SECONDS", 0.01)
    with api_server(denied={("patch", "deployments")}, lease=lease) as server:
        async with running(server, tmp_path, monkeypatch) as operator:
            said = await operator.until(lambda said: "rights" in said)
            assert "503 the rights of the operator: not granted: patch deployments.apps" in said
            assert await operator.probe("healthz") == "200 ok"
            server.denied.clear()
            await operator.until(lambda said: said == "200 ok")
            server.denied.add(("create", "events"))
            said = await operator.until(lambda said: said.startswith("503"))
            assert said == "503 the rights of the operator: not granted: create events.events.k8s.io"


async def test_a_right_that_is_missing_shows_in_readiness_until_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with api_server(refused={("GET", "pods"): 403, ("GET", "nodes"): 403}) as server:
        async with running(server, tmp_path, monkeypatch) as operator:
            said = await operator.until(lambda said: "pods" in said)
            assert "listing nodes: GET /api/v1/nodes: 403 nodes is forbidden" in said
            assert "listing pods: GET /api/v1/pods: 403 pods is forbidden" in said
            assert await operator.probe("healthz") == "200 ok"
            server.refused = {("watch", "pods"): 403}
            said = await operator.until(lambda said: "watching" in said)
            assert said == '503 watching: 403 pods is forbidden: User "me" cannot do that'
            server.refused = {}
            await operator.until(lambda said: said == "200 ok")


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (error_event(429, "too many requests"), "429 too many requests"),
        (error_event(500, "etcdserver: request timed out"), "500 etcdserver: request timed out"),
        (error_event(504, "Timeout: Too large resource version"), "504 Timeout: Too large resource version"),
        (b'{"type": "MODIFIED", "obj', "an answer that is not JSON: Unterminated string starting at"),
        ('{"type": "Ü'.encode()[:-1], "an answer that is not JSON: 'utf-8' codec can't decode byte 0xc3"),
    ],
    ids=["429", "500", "504", "half a line", "half a character"],
)
async def test_a_watch_that_ends_with_an_error_is_opened_again(
    sent: bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with api_server(last_words={"nodes": sent}) as server:
        async with running(server, tmp_path, monkeypatch) as operator:
            await operator.until(lambda said: said == "200 ok" and server.watched.count("nodes") == 2)
    (warned,) = [message for message in caplog.messages if message.startswith("watching: ")]
    assert warned.startswith(f"watching: {said}")


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each sweep."""
    noted, original = list[str](), Sweeper.sweep

    async def sweep(self: Sweeper) -> bool:
        noted.append("swept")
        return await original(self)

    monkeypatch.setattr(Sweeper, "sweep", sweep)
    return noted


async def test_a_list_that_outlives_its_first_pages_is_made_again_beside_the_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, sweeps: list[str]
) -> None:
    # Of the second page, so that the start is not over before the list is made again.
    team = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "team", "uid": "namespace-1", "resourceVersion": "1"},
    }
    with api_server(forgotten={"namespaces"}, items={"namespaces": [team]}) as server:
        async with running(server, tmp_path, monkeypatch) as operator:
            # It leads, too: a standby is ready as well.
            await operator.until(lambda said: "namespaces" in server.watched)
            await operator.until(lambda said: said == "200 ok")
        assert not server.forgotten
        # Had kopf ended, every kind would be watched twice.
        assert {server.watched.count(plural) for plural in WATCHED} == {1}
    # Objects of the first pages may have gone before the second list.
    assert len(sweeps) == 1
    assert not [message for message in caplog.messages if message.startswith("watching: ")]


async def test_a_start_lists_nothing_again_and_new_watches_look_for_what_went_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweeps: list[str]
) -> None:
    with api_server(unserved={"energybudgets"}) as server:
        async with running(server, tmp_path, monkeypatch) as operator:
            # It leads, too: a standby is ready as well.
            await operator.until(lambda said: "pods" in server.watched)
            await operator.until(lambda said: said == "200 ok")
            assert sweeps == []
            server.unserved = set()
            await operator.until(lambda said: "energybudgets" in server.watched)
            await operator.until(lambda said: said == "200 ok")
            assert len(sweeps) == 1


async def test_a_kept_connection_answers_after_new_watches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with api_server(unserved={"energybudgets"}) as server:
        async with running(server, tmp_path, monkeypatch) as operator, aiohttp.ClientSession() as scraper:
            page = f"http://127.0.0.1:{operator.port}/metrics"
            await operator.until(lambda said: said == "200 ok")
            # Younger than kopf, and not from a request of its own pool.
            async with scraper.get(page) as response:
                assert response.status == 200
                await response.read()
            server.unserved = set()
            await operator.until(lambda said: "energybudgets" in server.watched)
            await operator.until(lambda said: said == "200 ok")
            async with asyncio.timeout(60), scraper.get(page) as response:
                assert "energylens_leading 1.0" in await response.text()


async def test_kinds_that_come_and_go_are_watched_while_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with api_server(unserved={"energybudgets", "leaderworkersets"}) as server:
        async with running(server, tmp_path, monkeypatch) as operator:
            await operator.until(lambda said: said == "200 ok")
            assert not {"energybudgets", "leaderworkersets"} & set(server.watched)
            server.unserved = {"llmdeployments"}
            await operator.until(lambda said: "install the CustomResourceDefinitions" in said)
            server.watched.clear()
            server.unserved = set()
            await operator.until(
                lambda said: said == "200 ok" and {*WATCHED, "leaderworkersets"} <= set(server.watched)
            )


async def test_a_watch_that_brings_nothing_fails_the_liveness_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = Events(lambda call: call.resource == "energybudgets", silent=True)
    with api_server() as server, faulty_proxy(server.url, bookmark_seconds=0.05) as proxy:
        server.url = proxy.url
        async with running(server, tmp_path, monkeypatch, watch_silence_seconds=2.0) as operator:
            await operator.until(lambda said: said == "200 ok")
            await asyncio.sleep(2.5)
            assert await operator.probe("healthz") == "200 ok"
            proxy.events.append(silent)
            said = await operator.until(lambda said: said.startswith("503"), "healthz")
            assert "the watch of /apis/energylens.dev/v1alpha1/energybudgets has brought nothing for" in said
            proxy.heal()
            await operator.until(lambda said: said == "200 ok", "healthz")


async def test_objects_that_never_arrive_fail_the_liveness_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(arrival, "STUCK_LISTS", 2)
    node = {"metadata": {"name": "n0", "uid": "u0", "resourceVersion": "1"}}
    with (
        api_server(items={"nodes": [node]}, withheld={"nodes"}) as server,
        faulty_proxy(server.url, bookmark_seconds=0.05) as proxy,
    ):
        server.url = proxy.url
        async with running(server, tmp_path, monkeypatch, watch_silence_seconds=3.0) as operator:
            text = "the initial lists: 1 listed objects have not arrived, such as Node n0"
            await operator.until(lambda said: text in said)
            # The operator starts its watches again and again until the node arrives.
            await operator.until(lambda _: server.watched.count("nodes") > 1)
            said = await operator.until(lambda said: text in said, "healthz")
            assert said.startswith("503 ")
            server.withheld.clear()
            await operator.until(lambda said: said == "200 ok")
            assert await operator.probe("healthz") == "200 ok"


async def test_watches_that_cannot_be_opened_do_not_fail_the_liveness_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with api_server() as server, faulty_proxy(server.url, bookmark_seconds=0.05) as proxy:
        server.url = proxy.url
        # Long enough for a machine on which this process waits seconds for its turn.
        async with running(server, tmp_path, monkeypatch, watch_silence_seconds=5.0) as operator:
            await operator.until(lambda said: said == "200 ok")
            refused = Cut(lambda call: call.verb == "watch")
            proxy.faults.append(refused)
            proxy.cut_watches()
            await asyncio.sleep(6.0)
            assert refused.fired
            assert await operator.probe("healthz") == "200 ok"


async def test_a_new_token_is_used_by_the_watches_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with api_server(token="secret") as server:
        async with running(server, tmp_path, monkeypatch) as operator:
            await operator.until(lambda said: said == "200 ok")
            server.kubeconfig(tmp_path, token="another")
            server.token = "another"
            server.watched.clear()
            await operator.until(lambda said: said == "200 ok" and set(server.watched) >= WATCHED)


@pytest.mark.parametrize("when", ["before it watches", "while it watches"])
async def test_a_defect_of_kopf_ends_the_process_with_its_reason(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def ends(*, ready_flag: asyncio.Event, **_: Any) -> None:
        if when == "while it watches":
            ready_flag.set()
            await asyncio.sleep(0)
        raise OSError("No username set in the environment")

    monkeypatch.setattr(kopf, "operator", ends)
    with api_server() as server:
        async with running(server, tmp_path, monkeypatch) as operator:
            with pytest.raises(EndedError, match="No username set"):
                await operator.task
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == [
        "ending with an error: No username set in the environment"
    ]
    assert server.lease is not None
    assert server.lease["spec"]["holderIdentity"] == ""


async def test_kopf_that_ends_without_a_word_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ends(*, ready_flag: asyncio.Event, **_: Any) -> None:
        ready_flag.set()
        await asyncio.sleep(0.01)

    monkeypatch.setattr(kopf, "operator", ends)
    with api_server() as server:
        async with running(server, tmp_path, monkeypatch) as operator:
            with pytest.raises(EndedError, match="kopf ended"):
                await operator.task


async def test_a_kopf_that_does_not_stop_is_not_left_beside_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def goes_on(*, ready_flag: asyncio.Event, stop_flag: asyncio.Event, **_: Any) -> None:
        ready_flag.set()
        began.set()
        await stop_flag.wait()
        with contextlib.suppress(asyncio.CancelledError):
            await free.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                await free.wait()

    free, began = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr(kopf, "operator", goes_on)
    monkeypatch.setattr(acting, "KOPF_STOP_SECONDS", 0.01)
    with api_server() as server:
        async with running(server, tmp_path, monkeypatch) as operator:
            # The probe is good before the lease is taken, too.
            await began.wait()
            server.unserved = {"leaderworkersets"}
            try:
                with pytest.raises(EndedError, match="did not stop"):
                    await operator.task
            finally:
                free.set()


@pytest.mark.parametrize(
    "name", ["_settle", "_work", "_measure", "_keep_budgets", "_plan_again", "_sweep", "_keep_pool"]
)
async def test_no_task_ends_unseen(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(self: Acting, *_: Any) -> None:
        raise ZeroDivisionError(name)

    async def waits(*, stop_flag: asyncio.Event, **_: Any) -> None:
        await stop_flag.wait()

    monkeypatch.setattr(Acting, name, fails)
    monkeypatch.setattr(kopf, "operator", waits)
    with api_server() as server:
        async with running(server, tmp_path, monkeypatch) as operator:
            with pytest.raises(EndedError, match=name):
                await operator.task


def test_a_defect_is_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ends(self: Operator) -> None:
        raise EndedError("a defect")

    monkeypatch.setattr(runner.Operator, "run", ends)
    monkeypatch.setenv("KUBECONFIG", "")
    path = ApiServer(url="http://127.0.0.1:9").kubeconfig(tmp_path)
    assert CliRunner().invoke(command, [f"--kubeconfig={path}"]).exit_code == 1


@pytest.mark.parametrize(
    ("host", "addresses"), [("", ("127.0.0.1", "::1")), ("127.0.0.1", ("127.0.0.1",)), ("::1", ("::1",))]
)
async def test_it_listens_on_both_families_unless_told_otherwise(host: str, addresses: tuple[str, ...]) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    found = aiohttp.web.AppRunner(aiohttp.web.Application())
    await found.setup()
    port = free_port()
    try:
        await listen(found, host, port)
        for address in ("127.0.0.1", "::1"):
            try:
                _, writer = await asyncio.open_connection(address, port)
            except ConnectionRefusedError:
                assert address not in addresses
            else:
                assert address in addresses
                writer.close()
    finally:
        await found.cleanup()
