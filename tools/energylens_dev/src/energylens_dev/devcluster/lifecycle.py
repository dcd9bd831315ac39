"""`up`, `down` and `status` of one cluster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from energylens.clock import Clock, SystemClock
from energylens_dev.devcluster import operators
from energylens_dev.devcluster.binaries import Binaries, repository_root
from energylens_dev.devcluster.commands import API_SERVER, CONTROL_PLANE_PROCESSES, NAMESPACE, OPERATOR, health_urls
from energylens_dev.devcluster.components import CONTROL_PLANE
from energylens_dev.devcluster.control_plane import (
    ALL_PROCESSES,
    ControlPlane,
    Launcher,
    choose_ports,
    ensure_nodes,
    stop,
)
from energylens_dev.devcluster.errors import DevClusterError
from energylens_dev.devcluster.health import answers, client_context
from energylens_dev.devcluster.interrupts import deferred, raising
from energylens_dev.devcluster.kubectl import Kubectl
from energylens_dev.devcluster.nodes import NodePool
from energylens_dev.devcluster.ports import LOOPBACK
from energylens_dev.devcluster.processes import Processes
from energylens_dev.devcluster.progress import Progress
from energylens_dev.devcluster.stages import PodStages
from energylens_dev.devcluster.state import State, StateDirectory, default_directory


@dataclass(frozen=True)
class RunningCluster:
    """A cluster that is up; as a context manager it is stopped at the block's end, and its data removed.

    Attributes:
        directory: Its state directory.
        kubeconfig: The administrator's kubeconfig.
        kubectl: The kubectl executable.
        helm: The helm executable.
        audit_log: The API server's audit log, one JSON event per line.
        operator_kubeconfig: The kubeconfig of the chart's service account; written when the operator is started.
        pids: Process id of each process that runs.
        started: The processes that this call of `up` started, in no order; the others were running already.
        metrics_url: Where the operator serves its metrics, or None when it was left out.
    """

    directory: Path
    kubeconfig: Path
    kubectl: Path
    helm: Path
    audit_log: Path
    operator_kubeconfig: Path
    pids: dict[str, int]
    started: frozenset[str]
    metrics_url: str | None

    @property
    def operator_pid(self) -> int | None:
        """Process id of the operator, or None when it was left out."""
        return self.pids.get(OPERATOR)

    def client(self) -> Kubectl:
        """Return kubectl as this cluster's administrator."""
        return Kubectl(self.kubectl, self.kubeconfig, StateDirectory(self.directory).tool_caches / "kubectl")

    def down(self, *, purge: bool = False) -> None:
        """Stop every process; see `down`."""
        down(self.directory, purge=purge)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.down(purge=True)


@dataclass(frozen=True)
class ClusterStatus:
    """What runs.

    Attributes:
        wanted: The processes that should run, as the last `up` was asked.
        pids: Process id of each one that does.
        answers: Whether the API server says that it is ready.
        logs: Log file of each process.
    """

    wanted: tuple[str, ...]
    pids: dict[str, int]
    answers: bool
    logs: dict[str, Path]

    @property
    def all_up(self) -> bool:
        """Whether every wanted process runs and the API server is ready."""
        return self.answers and all(name in self.pids for name in self.wanted)


def up(
    directory: Path | None = None,
    *,
    pods: PodStages | None = None,
    pools: Sequence[NodePool] | None = None,
    chart: bool = True,
    operator: bool = True,
    operator_arguments: Sequence[str] | None = None,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> RunningCluster:
    """Start what is missing of a cluster; when that fails or is interrupted, stop what was started by this call.

    SIGINT, SIGTERM and SIGHUP are handled meanwhile, when called in the main thread.

    Args:
        directory: The state directory; default: see `default_directory`.
        pods: How fast pods are; None keeps what the cluster has, at first PodStages.LIFE_LIKE.
        pools: The GPU nodes; None keeps what the cluster has, at first DEFAULT_POOLS.
        chart: Whether to install the operator's chart.
        operator: Whether to run the operator on this machine; False stops one that runs.
        operator_arguments: Further arguments of `energylens operator`; None keeps what the cluster has.
        progress: Told of each step.
        clock: For certificates and tokens.

    Raises:
        DevClusterError: When a program cannot be built or a process does not become ready.
        Interrupted: When a signal came.
    """
    progress, clock = progress or Progress(), clock or SystemClock()
    if operator and not chart:
        raise DevClusterError("the operator needs the chart's service account: add --no-operator to --no-chart")
    root = repository_root()
    chart_folder = root / "charts" / "energylens"
    if chart:
        operators.check_chart(chart_folder)
    files = StateDirectory((directory or default_directory(os.environ)).absolute())
    with raising():
        binaries = Binaries(progress, root=root)
        programs = binaries.ensure([component.name for component in CONTROL_PLANE])
        stages = binaries.stages()
        with files.locked(progress):
            processes = Processes(files.records, files.logs)
            launcher = Launcher(processes, progress)
            try:
                state = files.load()
                state.choose(pods, pools, operator_arguments, operator=operator)
                state.programs = {name: str(programs[name]) for name in ("kubectl", "helm")}
                state.ports = choose_ports(state, processes)
                files.save(state)
                plane = ControlPlane(files, programs, stages, clock)
                _bring_up(plane, launcher, state, chart_folder if chart else None, clock)
                return _running(files, state, processes, frozenset(launcher.started()))
            except BaseException:
                # A second Ctrl-C must not leave half of it behind.
                with deferred():
                    stop(processes, launcher.started())
                raise


def _bring_up(plane: ControlPlane, launcher: Launcher, state: State, chart_folder: Path | None, clock: Clock) -> None:
    """Start the missing processes of a cluster, and its nodes, chart and operator as ``state`` has them."""
    files, programs, progress = plane.directory, plane.programs, launcher.progress
    kubectl = Kubectl(programs["kubectl"], files.kubeconfig, files.tool_caches / "kubectl")
    plane.start(launcher, kubectl, state)
    ensure_nodes(kubectl, state.pools, progress)
    if chart_folder is not None:
        helm = operators.Helm(programs["helm"], files.kubeconfig, files.tool_caches / "helm")
        state.chart = operators.ensure_chart(helm, kubectl, chart_folder, state.chart, progress)
        files.save(state)
    if state.operator:
        _run_operator(launcher, kubectl, files, state, clock)
    elif launcher.processes.stop([OPERATOR], grace_seconds=10):
        progress.say("stopped the operator")


def down(directory: Path | None = None, *, purge: bool = False, progress: Progress | None = None) -> list[str]:
    """Stop every process of a cluster, also when some or all have ended already.

    Args:
        directory: The state directory; default: see `default_directory`.
        purge: Whether to remove the cluster's data too, so that the next `up` starts from nothing.
        progress: Told when another command has to be waited for.

    Returns:
        The names of the processes that were running.
    """
    files = StateDirectory((directory or default_directory(os.environ)).absolute())
    if not files.path.exists():
        return []
    with files.locked(progress or Progress()), deferred():
        stopped = stop(Processes(files.records, files.logs))
        if purge:
            files.purge()
    return stopped


def status(directory: Path | None = None) -> ClusterStatus:
    """Return what runs of a cluster; changes nothing.

    Args:
        directory: The state directory; default: see `default_directory`.
    """
    files = StateDirectory((directory or default_directory(os.environ)).absolute())
    processes, state = Processes(files.records, files.logs), files.load()
    pids = _pids(processes)
    ready = False
    if API_SERVER in pids:
        context = client_context(files.pki / "ca.crt", files.pki / "etcd.crt", files.pki / "etcd.key")
        ready = answers(health_urls(state.ports)[API_SERVER], context)
    return ClusterStatus(
        wanted=(*CONTROL_PLANE_PROCESSES, OPERATOR) if state.operator else CONTROL_PLANE_PROCESSES,
        pids=pids,
        answers=ready,
        logs={name: processes.log_file(name) for name in ALL_PROCESSES},
    )


def running(directory: Path | None = None) -> RunningCluster | None:
    """Return the cluster of a state directory when all of it is up, else None; starts nothing.

    Args:
        directory: The state directory; default: see `default_directory`.
    """
    if not status(directory).all_up:
        return None
    files = StateDirectory((directory or default_directory(os.environ)).absolute())
    return _running(files, files.load(), Processes(files.records, files.logs), frozenset())


def _run_operator(launcher: Launcher, kubectl: Kubectl, files: StateDirectory, state: State, clock: Clock) -> None:
    runs = launcher.processes.running(OPERATOR) is not None
    good = operators.token_is_good(kubectl, files.operator_kubeconfig, clock.now())
    if not (runs and good):
        if runs:
            launcher.progress.say("the operator's token has ended or soon will: restarting the operator")
            launcher.processes.stop([OPERATOR], grace_seconds=10)
        server = f"https://{LOOPBACK}:{state.ports[API_SERVER]}"
        operators.write_operator_kubeconfig(kubectl, files.operator_kubeconfig, server, files.pki / "ca.crt")
    port = state.ports[OPERATOR]
    command = operators.operator_command(files.operator_kubeconfig, port, state.operator_arguments)
    # In a pod the chart sets this: the operator's own namespace, where its lease is.
    if launcher.ensure(OPERATOR, command, {"POD_NAMESPACE": NAMESPACE}):
        with launcher.progress.step("starting the operator"):
            launcher.wait(OPERATOR, lambda: answers(operators.metrics_url(port), None))


def _pids(processes: Processes) -> dict[str, int]:
    found = {name: processes.running(name) for name in ALL_PROCESSES}
    return {name: record.pid for name, record in found.items() if record is not None}


def _running(files: StateDirectory, state: State, processes: Processes, started: frozenset[str]) -> RunningCluster:
    pids = _pids(processes)
    wanted = (*CONTROL_PLANE_PROCESSES, OPERATOR) if state.operator else CONTROL_PLANE_PROCESSES
    gone = [name for name in wanted if name not in pids]
    if gone:
        raise DevClusterError(f"{gone[0]} ended soon after its start:\n{processes.log_tail(gone[0])}")
    return RunningCluster(
        directory=files.path,
        kubeconfig=files.kubeconfig,
        kubectl=Path(state.programs["kubectl"]),
        helm=Path(state.programs["helm"]),
        audit_log=files.audit_log,
        operator_kubeconfig=files.operator_kubeconfig,
        pids=pids,
        started=started,
        metrics_url=operators.metrics_url(state.ports[OPERATOR]) if OPERATOR in pids else None,
    )
