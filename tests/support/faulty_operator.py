"""An operator whose whole connection goes through a faulty proxy, and which is started again whenever it ends."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tests.support.api_client import ApiClient
from tests.support.faulty_proxy import FaultyProxy, faulty_proxy
from tests.support.operator_cluster import ROOT, SETTINGS, read_metric
from tests.support.operator_process import end, probe

from energylens.clock import SystemClock
from energylens_dev.devcluster import RunningCluster, eventually
from energylens_dev.devcluster.certificates import Authority
from energylens_dev.devcluster.operators import metrics_url, operator_command, write_operator_kubeconfig
from energylens_dev.devcluster.ports import free_port

SYSTEM = "energylens-system"
FAST: Mapping[str, Any] = {**SETTINGS, "resyncSeconds": 8}
"""Settings with which faults are overcome in times that a test can wait for."""
PROBE_SECONDS = 0.5
PROBES = 3
"""Failed liveness probes in a row after which the operator is started again, as the chart's probe has it."""


@dataclass
class FaultyOperator:
    """One container of a pod: its process ends and is started again, and its pod keeps its name."""

    proxy: FaultyProxy
    command: Sequence[str]
    port: int
    log: Path
    starts: int = field(default=0, init=False)
    unhealthy: list[str] = field(default_factory=list, init=False)
    """What the liveness probe said each time that it ended the process."""
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _stopped: threading.Event = field(default_factory=threading.Event, init=False)

    def start(self) -> None:
        """Start the process, and keep one running until :meth:`stop`."""
        self._stopped.clear()
        self._launch()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def stop(self) -> None:
        """End the process for good."""
        self._stopped.set()
        self._keeper.join()
        assert self._process is not None
        end(self._process)

    def kill(self) -> None:
        """End the process as a crash does; it is started again."""
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()

    def restart(self, command: Sequence[str] | None = None) -> None:
        """End the process politely and start it again, by another command from now on where one is given."""
        self.stop()
        self.command = self.command if command is None else command
        self.start()
        self.synced()

    def synced(self) -> None:
        """Wait until the initial lists are in."""
        eventually(lambda: self.probe("readyz") == "200 ok", 180)

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self._process is not None
        return self._process.pid

    def metric(self, series: str) -> float:
        """Return the value of a series; 0 when there is none."""
        return read_metric(metrics_url(self.port), series)

    def probe(self, name: str) -> str:
        """Return what a probe says, such as ``200 ok``; "" while nothing answers."""
        return probe(self.port, name)

    def _launch(self) -> None:
        environment = {**os.environ, "POD_NAMESPACE": SYSTEM, "POD_NAME": "faulty"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self.command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        self.starts += 1

    def _keep(self) -> None:
        failed = 0
        while not self._stopped.wait(PROBE_SECONDS):
            assert self._process is not None
            if self._process.poll() is not None:
                self._launch()
                failed = 0
                continue
            said = self.probe("healthz")
            failed = failed + 1 if said.startswith("503") else 0
            if failed >= PROBES:
                self.unhealthy.append(said)
                end(self._process)


@contextmanager
def faulty_operator(
    proxy: FaultyProxy, kubeconfig: Path, folder: Path, settings: Mapping[str, Any]
) -> Iterator[FaultyOperator]:
    """Run an operator through the proxy that the kubeconfig leads to; ``folder`` has its settings and its log."""
    config, port = folder / "settings.yaml", free_port()
    config.write_text(yaml.safe_dump(dict(settings)))
    command = operator_command(kubeconfig, port, [f"--config={config}"])
    log = folder / "operator.log"
    found = FaultyOperator(proxy, command, port, log)
    found.start()
    try:
        found.synced()
        yield found
    finally:
        found.stop()
        sys.stderr.write(log.read_text(errors="replace")[-20_000:])


@contextmanager
def operator_behind_proxy(cluster: RunningCluster, folder: Path, **settings: Any) -> Iterator[FaultyOperator]:
    """Run an operator behind a proxy that has a certificate of the cluster's authority.

    Args:
        cluster: A cluster with the chart and without an operator.
        folder: For the files of this one.
        settings: Of this one, beside :data:`FAST`.
    """
    authority = Authority(cluster.directory / "pki", SystemClock())
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*authority.issue("faulty-proxy", "faulty-proxy", hosts=["127.0.0.1"]))
    upstream = ApiClient(cluster.kubeconfig).server
    trusted = ssl.create_default_context(cafile=authority.certificate_file)
    with faulty_proxy(upstream, trusted, tls) as proxy:
        path = folder / "operator.kubeconfig"
        write_operator_kubeconfig(cluster.client(), path, proxy.url, authority.certificate_file)
        with faulty_operator(proxy, path, folder, {**FAST, **settings}) as found:
            yield found
