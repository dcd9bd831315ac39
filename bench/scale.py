"""Processor time, writes and memory of the operator by the number of LLMDeployments, on a real control plane.

Run it from a checkout: ``.venv/bin/python bench/scale.py``. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import yaml

import scale_fleet
from energylens_dev import devcluster
from energylens_dev.devcluster import Kubectl, PodStages, RunningCluster, StreamProgress
from scale_meters import Seen, WriteCounter, cpu_seconds, memory_mib, watching
from scale_report import plotted, table

OPERATOR = "operator"
CHUNK = 100
"""Objects of one kubectl create."""
POLL_SECONDS = 2.0
QUIET_SECONDS = 6.0
"""Without a write and without a waiting key for so long the operator is at rest."""
APPLIES_PER_SECOND = 10.0


@dataclass
class Phase:
    """What one part of a run took."""

    seconds: float
    cpu_seconds: dict[str, float]
    """By process."""
    writes: Counter[str]
    reads: Counter[str]

    @property
    def operator_cpu(self) -> float:
        """Processor time of the operator, s."""
        return self.cpu_seconds.get(OPERATOR, 0.0)


@dataclass
class Run:
    """Everything measured at one size."""

    objects: int
    nodes: int
    budgets: int
    planned_seconds: float
    """From the first apply until every object has a plan or a reason for none."""
    ready: int
    """Objects that are Ready at the end of the roll-out."""
    rollout: Phase
    idle: Phase
    node_added: Phase
    member_added: Phase
    restart: Phase
    lists_seconds: float
    """From the operator's start until its initial lists are in."""
    new_after_lists_seconds: float
    """From then until an object made meanwhile has a plan."""
    peak_mib: float
    resident_mib: float
    restarted_mib: float
    reaction: dict[str, list[float]] = field(default_factory=dict)
    """Seconds from the apply to the plan, and of Kubernetes' own Deployments to their ReplicaSets."""
    largest_object_bytes: int = 0
    largest_object: str = ""


class Bench:
    """One cluster with an operator, and the clock and the meters beside it."""

    def __init__(self, cluster: RunningCluster, settings: Path) -> None:
        """Measure ``cluster``; its operator runs with the settings of a file."""
        self.cluster = cluster
        self.settings = settings
        self.kubectl = cluster.client()
        self.writes = WriteCounter(cluster.audit_log)

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
        assert found is not None
        return found

    def cpu(self) -> dict[str, float]:
        """Return the processor time of every process until now, s."""
        return {name: cpu_seconds(pid) for name, pid in self.cluster.pids.items()}

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

    def waits(self) -> float:
        """Return the keys that wait or are worked on."""
        text = self._get("/metrics").read().decode()
        return float(next(line.split()[1] for line in text.splitlines() if line.startswith("energylens_queue_length ")))

    def measured(self, work: Callable[[], None]) -> Phase:
        """Return what the work took."""
        self.writes.taken()
        before, started = self.cpu(), time.monotonic()
        work()
        after, seconds = self.cpu(), time.monotonic() - started
        writes, reads = self.writes.taken()
        spent_here = after.get(OPERATOR, 0.0) - before.get(OPERATOR, 0.0)
        say(f"    {seconds:.0f} s, {spent_here:.1f} s of the operator's CPU, writes {dict(writes)}")
        # A process that was started meanwhile began at nothing.
        spent = {name: value - before.get(name, 0.0) for name, value in after.items() if value >= before.get(name, 0.0)}
        return Phase(seconds, spent, writes, reads)

    def at_rest(self, limit_seconds: float) -> None:
        """Wait until nothing waits and nothing is written."""
        ended, quiet_since, seen = time.monotonic() + limit_seconds, time.monotonic(), -1
        while time.monotonic() < ended:
            time.sleep(POLL_SECONDS)
            self.writes.read()
            now = self.writes.writes.total()
            if now != seen or self.waits() > 0:
                quiet_since, seen = time.monotonic(), now
            if time.monotonic() - quiet_since >= QUIET_SECONDS:
                return
        say(f"  not at rest after {limit_seconds:.0f} s")

    def create(self, objects: Iterable[scale_fleet.Object]) -> None:
        """Create objects, many at a time."""
        batch: list[scale_fleet.Object] = []
        for body in (*objects, None):
            if body is not None:
                batch.append(body)
            if batch and (body is None or len(batch) == CHUNK):
                # JSON is YAML, and parsed faster.
                text = json.dumps({"apiVersion": "v1", "kind": "List", "items": batch})
                self.kubectl.run("create", "-f", "-", stdin=text, timeout=600)
                batch = []

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


def rollout(bench: Bench, objects: int, distinct: int, limit_seconds: float) -> tuple[float, int]:
    """Create the fleet; return the seconds until all are planned, and how many are Ready once it is at rest."""
    started = time.monotonic()
    bench.create(scale_fleet.fleet(objects, distinct))
    planned = 0
    seconds = float("nan")
    while time.monotonic() - started < limit_seconds:
        planned, _ = bench.planning()
        if planned >= objects:
            seconds = time.monotonic() - started
            break
        time.sleep(POLL_SECONDS)
    say(f"  {planned} of {objects} planned after {time.monotonic() - started:.0f} s")
    bench.at_rest(max(60.0, limit_seconds - (time.monotonic() - started)))
    return seconds, bench.planning()[1]


def first_seen(seen: Seen, names: Sequence[str], limit_seconds: float) -> None:
    """Wait until all objects of these names were seen."""
    ended = time.monotonic() + limit_seconds
    while time.monotonic() < ended and not all(name in seen.at for name in names):
        time.sleep(0.05)


def reaction(bench: Bench, count: int) -> dict[str, list[float]]:
    """Apply LLMDeployments and Deployments at a steady pace; return the seconds until each was answered."""
    namespace = f"{scale_fleet.PREFIX}reaction"
    bench.kubectl.run("create", "namespace", namespace)
    inside, choices = bench.kubectl.within(namespace), scale_fleet.specs(200)
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
            text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [own, plain]})
            inside.run("create", "-f", "-", stdin=text)
        first_seen(planned, names, 120.0)
        first_seen(seen, [f"d-{name}" for name in names], 30.0)
    return {
        "LLMDeployment": sorted(planned.at.get(name, float("inf")) - sent[name] for name in names),
        "Deployment": sorted(seen.at.get(f"d-{name}", float("inf")) - sent[name] for name in names),
    }


def restart(bench: Bench) -> tuple[Phase, float, float]:
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
            first_seen(seen, [name], 300.0)
            planned = max(0.0, seen.at.get(name, float("inf")) - synced)
        bench.at_rest(300.0)

    return bench.measured(start), lists, planned


def largest_object(kubectl: Kubectl) -> tuple[int, str]:
    """Return the bytes and the name of the largest object of our own kinds, as the API server stores it in JSON."""
    found = (0, "")
    for kind in ("llmd", "eb", "ceb"):
        for body in kubectl.list(kind, "-A"):
            size = len(json.dumps(body, separators=(",", ":")).encode())
            found = max(found, (size, f"{body['kind']} {body['metadata']['name']}"))
    return found


def run(objects: int, options: argparse.Namespace, folder: Path) -> Run:
    """Measure one size on a cluster of its own."""
    pools = scale_fleet.pools(objects)
    say(f"{objects} LLMDeployments on {sum(pool.count for pool in pools)} nodes")
    settings = folder / "operator-settings.yaml"
    settings.write_text(yaml.safe_dump({}))
    cluster = devcluster.up(
        folder / "cluster", pods=PodStages.FAST, pools=pools, operator=False, progress=StreamProgress(sys.stderr)
    )
    try:
        bench = Bench(cluster, settings)
        bench.create(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            for name in scale_fleet.namespaces(objects)
        )
        budgets = [] if options.no_budgets else scale_fleet.budgets(objects)
        bench.create(budgets)
        bench.start_operator()
        bench.at_rest(30.0)
        seconds, ready = float("nan"), 0

        def roll_out() -> None:
            nonlocal seconds, ready
            seconds, ready = rollout(bench, objects, options.distinct, options.rollout_seconds)

        rolled_out = bench.measured(roll_out)
        peak, resident = memory_mib(bench.pid, "VmHWM"), memory_mib(bench.pid)
        say(f"  {rolled_out.operator_cpu:.1f} s of CPU, {rolled_out.writes.total()} writes, {resident:.0f} MiB; idle")
        idle = bench.measured(lambda: time.sleep(options.idle_seconds))
        say("  reaction")
        reacted = reaction(bench, options.reactions)
        say(f"    the slowest plan after {reacted['LLMDeployment'][-1]:.1f} s")
        bench.at_rest(120.0)
        say("  one more node")
        more = (scale_fleet.NodePool(pools[0].product, pools[0].count + 1, pools[0].gpus), *pools[1:])

        def add_node() -> None:
            bench.cluster = devcluster.up(bench.cluster.directory, pools=more)
            time.sleep(10.0)
            bench.at_rest(options.rollout_seconds)

        node_added = bench.measured(add_node)
        say("  one more member")
        extra = scale_fleet.deployment("one-more", f"{scale_fleet.PREFIX}000", scale_fleet.specs(1)[0])

        def add_member() -> None:
            bench.create([extra])
            time.sleep(20.0)
            bench.at_rest(options.rollout_seconds)

        member_added = bench.measured(add_member)
        say("  restart")
        restarted, lists, planned = restart(bench)
        say(f"    lists after {lists:.1f} s, a plan after {planned:.1f} s more")
        size, name = largest_object(bench.kubectl)
        return Run(
            objects=objects,
            nodes=sum(pool.count for pool in pools),
            budgets=len(budgets),
            planned_seconds=seconds,
            ready=ready,
            rollout=rolled_out,
            idle=idle,
            node_added=node_added,
            member_added=member_added,
            restart=restarted,
            lists_seconds=lists,
            new_after_lists_seconds=planned,
            peak_mib=peak,
            resident_mib=resident,
            restarted_mib=memory_mib(bench.pid),
            reaction=reacted,
            largest_object_bytes=size,
            largest_object=name,
        )
    finally:
        cluster.down(purge=True)


def main() -> int:
    """Run the sizes that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", default="100,500", help="sizes, with commas (default: %(default)s)")
    parser.add_argument("--distinct", type=int, default=200, help="distinct specs (default and most: %(default)s)")
    parser.add_argument("--no-budgets", action="store_true", help="leave EnergyBudgets and the ClusterEnergyBudget out")
    parser.add_argument("--idle-seconds", type=float, default=60.0, help="time at rest that is measured")
    parser.add_argument("--reactions", type=int, default=100, help="objects applied at 10 per second")
    parser.add_argument("--rollout-seconds", type=float, default=900.0, help="after which a roll-out is given up")
    parser.add_argument("--json", type=Path, help="file that gets every figure of every run")
    parser.add_argument("--plot", type=Path, help="file that gets the picture, .svg or .png (needs energylens[plot])")
    options = parser.parse_args()
    runs = []
    for objects in map(int, options.objects.split(",")):
        with tempfile.TemporaryDirectory(prefix="energylens-scale-") as folder:
            runs.append(asdict(run(objects, options, Path(folder))))
        # What was measured is kept, also where a later size fails.
        print(table(runs), flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps(runs, indent=1))
    if options.plot is not None:
        plotted(runs, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
