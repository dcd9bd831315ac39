"""Processor time, writes and memory of the operator by the number of LLMDeployments, on a real control plane.

Run it from a checkout: ``.venv/bin/python bench/scale.py``. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.api_client import ApiClient, ApiError

import scale_fleet
from energylens.cluster import resources
from energylens_dev import devcluster
from energylens_dev.devcluster import Kubectl, PodStages, RunningCluster, StreamProgress
from scale_meters import Seen, WriteCounter, cpu_seconds, is_running, memory_mib, watching
from scale_report import plotted, table

KINDS = {
    kind.kind: kind
    for kind in (
        resources.NODE,
        resources.NAMESPACE,
        resources.DEPLOYMENT,
        resources.LLM_DEPLOYMENT,
        resources.ENERGY_BUDGET,
        resources.CLUSTER_ENERGY_BUDGET,
    )
}
"""What is created here."""
BUSY, ALREADY_EXISTS = (429, 500, 503, 504), 409
"""Statuses of answers: of a server that takes the request later, and of a name that is taken."""
POLL_SECONDS = 2.0
QUIET_SECONDS = 6.0
"""Without a write and without a waiting key for so long the operator is at rest."""
APPLIES_PER_SECOND = 10.0
PRODUCT = "nvidia.com/gpu.product"
LEAST_SECONDS = 20.0
"""A part that has less time is left out."""
SPARE_SECONDS = 15.0
"""To end in."""
REST_SECONDS = 30.0
"""Of a part, to come to rest in after objects were applied one by one."""
ENDING = (signal.SIGALRM, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals after which the cluster is removed and the figures are printed."""
SETTINGS = {"leaseSeconds": 60}
"""Of the operator: the control plane shares its cores, and an operator that cannot renew its lease in time ends."""
PASSES = 'energylens_reconciles_total{result="ok"}'


@dataclass
class Phase:
    """What one part of a run took."""

    seconds: float
    cpu_seconds: dict[str, float]
    """By process."""
    writes: dict[str, int]
    reads: dict[str, int]
    passes: float
    """Passes of the operator over an LLMDeployment."""
    cut_short: bool = False
    """The part's time was over before the operator was at rest."""


class EndedError(Exception):
    """The run was ended before its end: by a signal, because its time is over, or because the operator is gone."""


class Record:
    """The figures of all sizes, kept in a file as they come, so that nothing is lost when a run is stopped."""

    def __init__(self, path: Path | None, limit_seconds: float) -> None:
        """Keep figures in ``path``, and let nothing begin that would go on for longer than ``limit_seconds``."""
        self._path = path
        self._ends = time.monotonic() + limit_seconds
        self.runs: list[dict[str, Any]] = []

    @property
    def seconds_left(self) -> float:
        """Time that is left of all."""
        return self._ends - time.monotonic()

    def put(self, **figures: Any) -> None:
        """Add figures to the last run."""
        self.runs[-1] |= {name: asdict(value) if isinstance(value, Phase) else value for name, value in figures.items()}
        if self._path is not None:
            partial = self._path.with_suffix(".partial")
            partial.write_text(json.dumps(self.runs, indent=1))
            partial.replace(self._path)


class Bench:
    """One cluster with an operator, and the clock and the meters beside it."""

    def __init__(self, cluster: RunningCluster, settings: Path) -> None:
        """Measure ``cluster``; its operator runs with the settings of a file."""
        self.cluster = cluster
        self.settings = settings
        self.kubectl = cluster.client()
        # A program for each request would take more processor time than the operator.
        self.api = ApiClient(cluster.kubeconfig)
        self.writes = WriteCounter(cluster.audit_log)
        self.is_cut_short = False

    def start_operator(self) -> None:
        """Start the operator, and forget the requests of its start-up."""
        self.cluster = devcluster.up(self.cluster.directory, operator_arguments=[f"--config={self.settings}"])

    def stop_operator(self) -> None:
        """Stop the operator."""
        self.cluster = devcluster.up(self.cluster.directory, operator=False)

    @property
    def pid(self) -> int:
        """The operator's process."""
        found = self.cluster.operator_pid
        if found is None or not is_running(found):
            raise EndedError("the operator has ended")
        return found

    def cpu(self) -> dict[str, float]:
        """Return the processor time of every process until now, s."""
        return {name: cpu_seconds(pid) for name, pid in self.cluster.pids.items() if is_running(pid)}

    def answers(self, path: str) -> bool:
        """Return whether the operator's server answers a path with 200."""
        try:
            return bool(self._get(path).status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _get(self, path: str) -> urllib.request.addinfourl:
        assert self.cluster.metrics_url is not None
        url = self.cluster.metrics_url.replace("/metrics", path)
        answer: urllib.request.addinfourl = urllib.request.urlopen(url, timeout=30)
        return answer

    def metric(self, series: str) -> float:
        """Return a metric of the operator, 0 while it does not run or answer."""
        if self.cluster.metrics_url is None:
            return 0.0
        try:
            text = self._get("/metrics").read().decode()
        except (urllib.error.URLError, OSError):
            return 0.0
        return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{series} ")), 0.0)

    def measured(self, work: Callable[[], None]) -> Phase:
        """Return what the work took."""
        self.writes.taken()
        self.is_cut_short = False
        passes, before, started = self.metric(PASSES), self.cpu(), time.monotonic()
        work()
        after, seconds = self.cpu(), time.monotonic() - started
        writes, reads = self.writes.taken()
        # A process that was started meanwhile began at nothing.
        spent = {name: value - (b if value >= (b := before.get(name, 0.0)) else 0.0) for name, value in after.items()}
        now = self.metric(PASSES)
        found = Phase(
            seconds, spent, dict(writes), dict(reads), now - passes if now >= passes else now, self.is_cut_short
        )
        say(f"    {seconds:.0f} s, CPU {_rounded(spent)}, {found.passes:.0f} passes, writes {dict(writes)}")
        return found

    def at_rest(self, limit_seconds: float) -> None:
        """Wait until nothing is written and nothing waits; every page of metrics costs the operator time itself."""
        ended, quiet_since, seen = time.monotonic() + limit_seconds, time.monotonic(), -1
        while time.monotonic() < ended:
            time.sleep(POLL_SECONDS)
            self.writes.read()
            now = self.writes.writes.total()
            if now != seen:
                quiet_since, seen = time.monotonic(), now
            if time.monotonic() - quiet_since >= QUIET_SECONDS:
                if self.metric("energylens_queue_length") == 0:
                    return
                quiet_since = time.monotonic()
        self.is_cut_short = True
        say(f"    not at rest after {limit_seconds:.0f} s")

    def create(self, objects: Iterable[scale_fleet.Object]) -> None:
        """Create objects, one after another."""
        for body in objects:
            path = KINDS[body["kind"]].path(body["metadata"].get("namespace"))
            while True:
                try:
                    self.api.request("POST", path, body)
                except ApiError as error:
                    if error.status in BUSY:
                        time.sleep(1.0)
                        continue
                    # A request whose answer was lost is sent again.
                    if error.status != ALREADY_EXISTS:
                        raise
                break

    def ready_nodes(self) -> int:
        """Return how many nodes are ready, once that is all of them, or after a minute."""
        path = "custom-columns=R:.status.conditions[?(@.type=='Ready')].status"
        for _ in range(30):
            states = self.kubectl.run("get", "nodes", "--no-headers", "-o", path).split()
            if all(state == "True" for state in states):
                break
            time.sleep(POLL_SECONDS)
        return states.count("True")

    def budgets_are_looked_at(self, budgets: int) -> None:
        """Wait until all budgets have a status: before the first look a budget leaves nothing to its members."""
        path = "custom-columns=G:.status.observedGeneration"
        for _ in range(60):
            states = [self.kubectl.run("get", kind, "-A", "--no-headers", "-o", path).split() for kind in ("eb", "ceb")]
            if sum(state != "<none>" for found in states for state in found) >= budgets:
                return
            time.sleep(POLL_SECONDS)
        say("  not every budget was looked at")

    def planning(self) -> tuple[int, int]:
        """Return how many LLMDeployments have been planned, and how many are Ready, by their printed columns."""
        path = "custom-columns=P:.status.conditions[?(@.type=='PlanReady')].reason,"
        path += "R:.status.conditions[?(@.type=='Ready')].status"
        lines = self.kubectl.run("get", "llmd", "-A", "--no-headers", "-o", path, timeout=600).splitlines()
        rows = [line.split() for line in lines if line.strip()]
        return sum(row[0] != "<none>" for row in rows), sum(row[1] == "True" for row in rows)


def say(text: str) -> None:
    """Tell what happens, at once."""
    print(text, file=sys.stderr, flush=True)


def _rounded(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f} s" for name, value in sorted(seconds.items()) if value >= 0.1)


def rollout(bench: Bench, objects: int, distinct: int, limit_seconds: float, found: dict[str, Any]) -> None:
    """Create the fleet and wait until it is at rest; put how many were planned by when, and are Ready, into ``found``.

    An object is planned when its status is written first, which the audit log says without a question to anybody.
    """
    started = time.monotonic()
    bench.writes.named.clear()
    fleet = list(scale_fleet.fleet(objects, distinct))
    # A daemon, so that a run that is ended does not wait for it.
    creating = threading.Thread(target=bench.create, args=(fleet,), daemon=True)
    creating.start()
    curve: list[tuple[float, int]] = []
    found |= {"planned_seconds": None, "planned_curve": curve, "planned_cpu": None}
    while (now := time.monotonic() - started) < limit_seconds:
        bench.writes.read()
        curve.append((round(now, 1), len(bench.writes.named)))
        if curve[-1][1] >= objects:
            found |= {"planned_seconds": now, "planned_cpu": bench.cpu()}
            break
        time.sleep(POLL_SECONDS)
    creating.join()
    say(f"  {curve[-1][1]} of {objects} planned after {now:.0f} s")
    bench.at_rest(max(10.0, limit_seconds - (time.monotonic() - started)))
    planned, ready = bench.planning()
    found |= {"planned": planned, "ready": ready}


def first_seen(seen: Seen, names: Sequence[str], limit_seconds: float) -> None:
    """Wait until all objects of these names were seen."""
    ended = time.monotonic() + limit_seconds
    while time.monotonic() < ended and not all(name in seen.at for name in names):
        time.sleep(0.05)


def reaction(bench: Bench, namespace: str, count: int, distinct: int, limit_seconds: float) -> dict[str, list[float]]:
    """Apply LLMDeployments and Deployments at a steady pace; return the seconds until each was answered."""
    bench.create([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}])
    inside, choices = bench.kubectl.within(namespace), scale_fleet.specs(distinct)
    names = [f"r-{index:04d}" for index in range(count)]
    sent: dict[str, float] = {}
    plans = watching(inside, "llmd", "{.status.plan.hash}", "")
    sets = watching(inside, "deployments.apps", "{.status.observedGeneration}", "")
    with plans as planned, sets as seen:
        time.sleep(1.0)
        started = time.monotonic()
        for index, name in enumerate(names):
            time.sleep(max(0.0, started + index / APPLIES_PER_SECOND - time.monotonic()))
            sent[name] = time.monotonic()
            own = scale_fleet.deployment(name, namespace, choices[index % len(choices)])
            plain = scale_fleet.plain_deployment(f"d-{name}", namespace)
            bench.create([own, plain])
        first_seen(planned, names, max(1.0, limit_seconds - count / APPLIES_PER_SECOND))
        first_seen(seen, [f"d-{name}" for name in names], 5.0)
    return {
        "LLMDeployment": sorted(planned.at.get(name, float("inf")) - sent[name] for name in names),
        "Deployment": sorted(seen.at.get(f"d-{name}", float("inf")) - sent[name] for name in names),
    }


def restart(bench: Bench, limit_seconds: float) -> tuple[Phase, float, float]:
    """Start the operator again; return what that took, until the lists were in, and from then to a new plan."""
    namespace, name = f"{scale_fleet.PREFIX}000", "born-meanwhile"
    body = scale_fleet.deployment(name, namespace, scale_fleet.specs(1)[0])
    bench.stop_operator()
    bench.create([body])
    lists = planned = float("nan")

    def start() -> None:
        nonlocal lists, planned
        inside = bench.kubectl.within(namespace)
        with watching(inside, "llmd", "{.status.plan.hash}", "") as seen:
            started = time.monotonic()
            bench.start_operator()
            while not bench.answers("/readyz"):
                time.sleep(0.1)
            synced = time.monotonic()
            lists = synced - started
            first_seen(seen, [name], limit_seconds)
            planned = max(0.0, seen.at.get(name, float("inf")) - synced)
            bench.at_rest(max(5.0, limit_seconds - (time.monotonic() - started)))

    return bench.measured(start), lists, planned


def largest_object(kubectl: Kubectl) -> tuple[int, str]:
    """Return the bytes and the name of the largest object of our own kinds, as the API server stores it in JSON."""
    found = (0, "")
    for kind in ("llmd", "eb", "ceb"):
        for body in kubectl.list(kind, "-A"):
            size = len(json.dumps(body, separators=(",", ":")).encode())
            found = max(found, (size, f"{body['kind']} {body['metadata']['name']}"))
    return found


def run(objects: int, options: argparse.Namespace, folder: Path, record: Record) -> None:
    """Measure one size on a cluster of its own, as many parts as there is time for."""
    pools = scale_fleet.pools(objects, besides(options))
    nodes = sum(pool.count for pool in pools)
    say(f"{objects} LLMDeployments on {nodes} nodes")
    settings = folder / "operator-settings.yaml"
    settings.write_text(yaml.safe_dump(SETTINGS))
    try:
        cluster = devcluster.up(
            folder / "cluster",
            pods=PodStages.FAST,
            pools=scale_fleet.few(pools),
            operator=False,
            progress=StreamProgress(sys.stderr),
        )
        bench = Bench(cluster, settings)
        bench.create(scale_fleet.more_nodes(pools))
        say(f"  {bench.ready_nodes()} nodes are ready")
        bench.create(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            for name in scale_fleet.namespaces(objects)
        )
        budgets = [] if options.no_budgets else scale_fleet.budgets(objects)
        bench.create(budgets)
        bench.start_operator()
        bench.budgets_are_looked_at(len(budgets))
        record.runs.append({"objects": objects, "nodes": nodes, "budgets": len(budgets)})
        record.put(empty_mib=memory_mib(bench.pid))
        for part in options.parts.split(","):
            limit = min(options.part_seconds, record.seconds_left - SPARE_SECONDS)
            if limit < LEAST_SECONDS:
                say(f"  {part}: no time is left")
                record.put(left_out=[*record.runs[-1].get("left_out", []), part])
                continue
            say(f"  {part}, at most {limit:.0f} s")
            PARTS[part](bench, objects, options, limit, record)
            record.put(resident_mib=memory_mib(bench.pid))
    finally:
        devcluster.down(folder / "cluster", purge=True)


def besides(options: argparse.Namespace) -> int:
    """Return the objects that the parts make beside the fleet, and for which nodes must have GPUs."""
    parts = options.parts.split(",")
    return options.reactions * (("reaction" in parts) + ("busy" in parts)) + options.crowd * ("busy" in parts)


def part_rollout(bench: Bench, objects: int, options: argparse.Namespace, limit: float, record: Record) -> None:
    found: dict[str, Any] = {}
    try:
        phase = bench.measured(lambda: rollout(bench, objects, options.distinct, limit, found))
    except EndedError:
        record.put(**found)
        raise
    record.put(rollout=phase, **found, peak_mib=memory_mib(bench.pid, "VmHWM"), rolled_out_mib=memory_mib(bench.pid))
    size, name = largest_object(bench.kubectl)
    record.put(largest_object_bytes=size, largest_object=name)


def part_idle(bench: Bench, objects: int, options: argparse.Namespace, limit: float, record: Record) -> None:
    record.put(idle=bench.measured(lambda: time.sleep(min(limit, options.idle_seconds))))


def part_reaction(bench: Bench, objects: int, options: argparse.Namespace, limit: float, record: Record) -> None:
    """Apply objects while nothing else changes; what an earlier part left is waited for."""
    bench.is_cut_short = False
    bench.at_rest(limit / 2)
    began_at_rest = not bench.is_cut_short
    namespace = f"{scale_fleet.PREFIX}reaction"
    reacted = reaction(bench, namespace, options.reactions, options.distinct, max(5.0, limit / 2 - REST_SECONDS))
    say(f"    the slowest plan after {reacted['LLMDeployment'][-1]:.1f} s")
    record.put(reaction=reacted, reaction_began_at_rest=began_at_rest)
    bench.at_rest(REST_SECONDS - 10.0)


def part_busy(bench: Bench, objects: int, options: argparse.Namespace, limit: float, record: Record) -> None:
    """Apply objects while others, which were applied all at once, are rolled out."""
    crowd = f"{scale_fleet.PREFIX}crowd"
    bench.create([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": crowd}}])
    choices = scale_fleet.specs(options.distinct)
    bench.create(
        scale_fleet.deployment(f"c-{index:04d}", crowd, choices[index % len(choices)]) for index in range(options.crowd)
    )
    namespace = f"{scale_fleet.PREFIX}busy"
    reacted = reaction(bench, namespace, options.reactions, options.distinct, max(5.0, limit - REST_SECONDS))
    say(f"    the slowest plan after {reacted['LLMDeployment'][-1]:.1f} s")
    record.put(busy_reaction=reacted, crowd=options.crowd)
    bench.at_rest(REST_SECONDS - 10.0)


def part_node(bench: Bench, objects: int, options: argparse.Namespace, limit: float, record: Record) -> None:
    """Add a node, and wait for as long as every deployment is looked at once."""
    first, *others = scale_fleet.pools(objects, besides(options))
    more = (scale_fleet.NodePool(first.product, first.count + 1, first.gpus), *others)
    *_, node = (one for one in scale_fleet.more_nodes(more) if one["metadata"]["labels"][PRODUCT] == first.product)

    def add() -> None:
        bench.create([node])
        time.sleep(min(limit, options.node_seconds))

    record.put(node_added=bench.measured(add))


def part_member(bench: Bench, objects: int, options: argparse.Namespace, limit: float, record: Record) -> None:
    extra = scale_fleet.deployment("one-more", f"{scale_fleet.PREFIX}000", scale_fleet.specs(1)[0])

    def add() -> None:
        bench.create([extra])
        time.sleep(10.0)
        bench.at_rest(limit)

    record.put(member_added=bench.measured(add))


def part_restart(bench: Bench, objects: int, options: argparse.Namespace, limit: float, record: Record) -> None:
    phase, lists, planned = restart(bench, limit)
    say(f"    lists after {lists:.1f} s, a plan after {planned:.1f} s more")
    record.put(
        restart=phase,
        lists_seconds=lists,
        new_after_lists_seconds=planned,
        restarted_mib=memory_mib(bench.pid),
        restarted_peak_mib=memory_mib(bench.pid, "VmHWM"),
    )


PARTS = {
    "rollout": part_rollout,
    "idle": part_idle,
    "reaction": part_reaction,
    "busy": part_busy,
    "restart": part_restart,
    "member": part_member,
    "node": part_node,
}


def sizes(text: str) -> list[int]:
    """Return sizes that are separated by commas.

    Raises:
        argparse.ArgumentTypeError: one is no positive whole number.
    """
    if not all(part.isdecimal() and int(part) > 0 for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r}: allowed are positive whole numbers with commas, such as 100,300")
    return [int(part) for part in text.split(",")]


def main() -> int:
    """Run the sizes that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", default="100,300", type=sizes, help="sizes, with commas (default: %(default)s)")
    parser.add_argument("--parts", default=",".join(PARTS), help="in their order (default: %(default)s)")
    parser.add_argument("--distinct", type=int, default=200, help="distinct specs (default and most: %(default)s)")
    parser.add_argument("--no-budgets", action="store_true", help="leave EnergyBudgets and the ClusterEnergyBudget out")
    parser.add_argument("--idle-seconds", type=float, default=60.0, help="time at rest that is measured")
    parser.add_argument("--node-seconds", type=float, default=320.0, help="time that is measured after a node came")
    parser.add_argument("--reactions", type=int, default=100, help="objects applied at 10 per second")
    parser.add_argument("--crowd", type=int, default=200, help="objects applied at once before those of `busy`")
    parser.add_argument("--part-seconds", type=float, default=900.0, help="after which a part is given up")
    parser.add_argument("--seconds", type=float, default=7200.0, help="after which the run ends")
    parser.add_argument("--json", type=Path, help="file that gets every figure as soon as it is known")
    parser.add_argument("--plot", type=Path, help="file that gets the picture, .svg or .png (needs energylens[plot])")
    options = parser.parse_args()
    record = Record(options.json, options.seconds)
    try:
        with ending_after(options.seconds):
            for objects in options.objects:
                # Also after a SIGKILL no cluster is left.
                with (
                    tempfile.TemporaryDirectory(prefix="energylens-scale-") as folder,
                    devcluster.guarded(Path(folder) / "cluster"),
                ):
                    run(objects, options, Path(folder), record)
    except EndedError as error:
        say(f"ended: {error}")
        if record.runs:
            record.put(ended=str(error))
    print(table(record.runs), flush=True)
    if options.plot is not None:
        plotted(record.runs, options.plot)
    return 1 if any("ended" in found for found in record.runs) or not record.runs else 0


@contextmanager
def ending_after(seconds: float) -> Iterator[None]:
    """End what is done inside with an EndedError after some time, or at a signal; then no other ends the clean-up."""

    def end(number: int, frame: object) -> NoReturn:
        for each in ENDING:
            signal.signal(each, signal.SIG_IGN)
        raise EndedError("the time is over" if number == signal.SIGALRM else signal.Signals(number).name)

    for each in ENDING:
        signal.signal(each, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


if __name__ == "__main__":
    sys.exit(main())
