"""Starts what is missing of the control plane, in order, and waits for it; stops it in the reverse order."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import yaml

from energylens.clock import Clock
from energylens_dev.devcluster.certificates import Authority, service_account_keys
from energylens_dev.devcluster.commands import (
    API_SERVER,
    CLIENTS,
    CONTROL_PLANE_PROCESSES,
    CONTROLLER_MANAGER,
    ETCD,
    KUBERNETES_SERVICE_IP,
    KWOK,
    OPERATOR,
    PORT_NAMES,
    SCHEDULER,
    Files,
    audit_policy,
    command_lines,
    health_urls,
    kwok_bindings,
)
from energylens_dev.devcluster.errors import DevClusterError
from energylens_dev.devcluster.health import answers, client_context, wait_ready
from energylens_dev.devcluster.kubeconfig import client_certificate, kubeconfig, write_kubeconfig
from energylens_dev.devcluster.kubectl import Kubectl
from energylens_dev.devcluster.nodes import NODE_LABEL, SPEC_ANNOTATION, NodePool, node_manifests
from energylens_dev.devcluster.ports import LOOPBACK, free_port, is_free
from energylens_dev.devcluster.processes import Processes, ProcessRecord
from energylens_dev.devcluster.progress import Progress
from energylens_dev.devcluster.stages import manifest_files, stage_files
from energylens_dev.devcluster.state import State, StateDirectory

ALL_PROCESSES = (*CONTROL_PLANE_PROCESSES, OPERATOR)

_READY_TIMEOUT_SECONDS = 180.0
# The API server hangs at its end when etcd is gone, so it goes before etcd, and its clients go before it.
_STOP_ORDER = ((OPERATOR, KWOK, SCHEDULER, CONTROLLER_MANAGER), (API_SERVER,), (ETCD,))
_GRACE_SECONDS = 10.0


class Launcher:
    """Starts the processes of one cluster, unless they run already."""

    def __init__(self, processes: Processes, progress: Progress) -> None:
        """Remember what runs now, so that a failed or interrupted start can be taken back."""
        self.processes = processes
        self.progress = progress
        self._before = {name: processes.running(name) for name in ALL_PROCESSES}

    def ensure(self, name: str, command: Sequence[str], extra_environment: Mapping[str, str] | None = None) -> bool:
        """Start a process unless it runs with these arguments already.

        The program's path is not compared: that it was found elsewhere today is no reason to restart it.

        Returns:
            Whether it was started.
        """
        running = self.processes.running(name)
        if running is not None:
            if running.command[1:] == tuple(command[1:]):
                return False
            self.progress.say(f"{name} runs with other arguments: restarting it")
            self.processes.stop([name], _GRACE_SECONDS)
        self.processes.start(name, command, {**os.environ, **(extra_environment or {})})
        return True

    def wait(self, name: str, ready: Callable[[], bool]) -> None:
        """Wait until a process is ready.

        Raises:
            DevClusterError: With the end of its log, when it ends or takes too long.
        """
        try:
            wait_ready(ready, lambda: self.processes.running(name) is not None, _READY_TIMEOUT_SECONDS)
        except DevClusterError as error:
            log, tail = self.processes.log_file(name), self.processes.log_tail(name)
            raise DevClusterError(f"{name} {error}; the end of {log}:\n{tail}") from error

    def started(self) -> dict[str, ProcessRecord]:
        """Return the processes that run now and did not when this launcher was made."""
        now = {name: self.processes.running(name) for name in ALL_PROCESSES}
        return {name: record for name, record in now.items() if record is not None and record != self._before[name]}


def stop(processes: Processes, names: Collection[str] = ALL_PROCESSES) -> list[str]:
    """End processes, each in its turn.

    Returns:
        The names of those that were running.
    """
    return [
        name
        for group in _STOP_ORDER
        for name in processes.stop([member for member in group if member in names], _GRACE_SECONDS)
    ]


def choose_ports(state: State, processes: Processes) -> dict[str, int]:
    """Return a port for each server: the one it had, unless somebody else has taken it since.

    When etcd or the API server cannot have its port back, everything is stopped: all of it would have to be pointed
    elsewhere.
    """
    down = {name for name in ALL_PROCESSES if processes.running(name) is None}

    def lost(name: str) -> bool:
        if name not in state.ports:
            return True
        owner = ETCD if name == "etcd-peer" else name
        return owner in down and not is_free(state.ports[name])

    missing = {name for name in PORT_NAMES if lost(name)}
    if {ETCD, API_SERVER} & missing:
        stop(processes)
    ports = dict(state.ports)
    for name in PORT_NAMES:
        if name in missing:
            ports[name] = free_port(taken=ports.values())
    return ports


class ControlPlane:
    """The control plane of one state directory: its files, its processes and its nodes."""

    def __init__(self, directory: StateDirectory, programs: Mapping[str, Path], stages: Path, clock: Clock) -> None:
        """Name what it is made of; nothing is written yet.

        Args:
            directory: Where its files are.
            programs: Path of each program.
            stages: kwok's files, see `energylens_dev.devcluster.stages`.
            clock: For the validity of certificates.
        """
        self.directory = directory
        self.programs = programs
        self._stages = stages
        self._clock = clock

    def start(self, launcher: Launcher, kubectl: Kubectl, state: State) -> None:
        """Write the files, start what does not run, and wait until all of it is ready.

        Raises:
            DevClusterError: When a process ends or is not ready in time.
        """
        files = self._write_files(state)
        lines = command_lines(self.programs, state.ports, files)
        urls = health_urls(state.ports)
        context = client_context(files.authority, *files.etcd)
        self._start_group(launcher, (ETCD,), lines, lambda name: answers(urls[name], context))
        self._start_group(launcher, (API_SERVER,), lines, lambda name: answers(urls[name], context))
        kubectl.run("apply", "--server-side", "--force-conflicts", "-f", str(self._write_bootstrap()))
        rest = (CONTROLLER_MANAGER, SCHEDULER, KWOK)
        self._start_group(launcher, rest, lines, lambda name: answers(urls[name], context))

    @staticmethod
    def _start_group(
        launcher: Launcher, names: Sequence[str], lines: Mapping[str, Sequence[str]], ready: Callable[[str], bool]
    ) -> None:
        started = [name for name in names if launcher.ensure(name, lines[name])]
        for name in names:
            if name in started:
                with launcher.progress.step(f"starting {name}"):
                    launcher.wait(name, lambda name=name: ready(name))  # type: ignore[misc]
            else:
                launcher.wait(name, lambda name=name: ready(name))  # type: ignore[misc]

    def _write_files(self, state: State) -> Files:
        directory = self.directory
        authority = Authority(directory.pki, self._clock)
        hosts = [
            LOOPBACK, "localhost", KUBERNETES_SERVICE_IP,
            "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
        ]  # fmt: skip
        server = f"https://{LOOPBACK}:{state.ports[API_SERVER]}"
        kubeconfigs: dict[str, Path] = {}
        for name, (user, groups) in CLIENTS.items():
            certificate, key = authority.issue(f"client-{name}", user, organizations=groups)
            kubeconfigs[name] = directory.kubeconfig if name == "admin" else directory.component_kubeconfig(name)
            entry = client_certificate(certificate.read_bytes(), key.read_bytes())
            write_kubeconfig(kubeconfigs[name], kubeconfig(server, authority.certificate_file.read_bytes(), entry))
        directory.logs.mkdir(exist_ok=True, mode=0o700)
        directory.audit_policy.write_text(yaml.safe_dump(audit_policy(), sort_keys=False), encoding="utf-8")
        return Files(
            authority=authority.certificate_file,
            etcd=authority.issue("etcd", "etcd", hosts=[LOOPBACK, "localhost"]),
            server=authority.issue("server", "kube-apiserver", hosts=hosts),
            service_account=service_account_keys(directory.pki),
            kubeconfigs=kubeconfigs,
            etcd_data=directory.etcd,
            audit_policy=directory.audit_policy,
            audit_log=directory.audit_log,
            stages=stage_files(self._stages, state.pods),
        )

    def _write_bootstrap(self) -> Path:
        """Write what kwok needs in the cluster: its roles, their bindings and the storage class that it provisions."""
        texts = [path.read_text(encoding="utf-8") for path in manifest_files(self._stages)]
        texts.append(yaml.safe_dump_all(kwok_bindings(), sort_keys=False))
        self.directory.bootstrap.write_text("\n---\n".join(texts), encoding="utf-8")
        return self.directory.bootstrap


def ensure_nodes(kubectl: Kubectl, pools: Sequence[NodePool], progress: Progress) -> None:
    """Create the nodes that are missing, replace those whose manifest changed, remove those no longer wanted."""
    wanted = {node["metadata"]["name"]: node for node in node_manifests(pools)}

    def digest(node: Mapping[str, Mapping[str, Mapping[str, str]]]) -> str | None:
        return node["metadata"].get("annotations", {}).get(SPEC_ANNOTATION)

    live = {node["metadata"]["name"]: digest(node) for node in kubectl.list("nodes", "-l", NODE_LABEL)}
    stale = [name for name, found in live.items() if name not in wanted or digest(wanted[name]) != found]
    new = [node for name, node in wanted.items() if name not in live or name in stale]
    if stale:
        kubectl.run("delete", "node", *stale)
    if new:
        with progress.step(f"creating {len(new)} nodes"):
            kubectl.run("create", "-f", "-", stdin=yaml.safe_dump_all(new, sort_keys=False))
            kubectl.run("wait", "--for=condition=Ready", "node", "-l", NODE_LABEL, "--timeout=120s", timeout=150)
