"""Mutation testing: change the code in one place, run the tests that reach that place, list the changes nobody noticed.

``python -m tools.mutants operator/energylens/budget --tests tests/unit/budget tests/faults`` prints the survivors. Each
is a missing test, or has a reason: the change alters no behaviour, or the wording of a message only.

The tests are collected once, and a first pass notes the lines that each test runs (``tools/reach.py``). Then, for each
mutant, the process forks, and the fork makes the change (``tools/mutation.py``) and runs the tests that run the changed
line until one fails: first those that killed the latest mutants of the same function and module, then the quickest.
A mutant that survives tests worth ``--first`` seconds is tried with the rest of its tests after all others. Time is CPU
time, so that a busy machine alters no outcome. ``--sample N`` draws N mutants with a fixed seed, and ``--again LOG``
takes the survivors of an earlier run, to try them with other tests. ``--reach FILE`` keeps the lines of each test for
the next run: a test runs again for them only after a change of its file, or of a mutated module that it runs.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import math
import mmap
import os
import random
import re
import resource
import select
import signal
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from tools.mutation import Mutant, apply, mutants
from tools.reach import Reach, run

OUTCOMES = ("killed", "survived", "no test", "timed out", "not run")
_SLOWER = 10.0
"""A mutant may take this many times the CPU time of its tests, and :data:`_MORE`, before it counts as timed out."""
_MORE = 3.0
_WALL = 20.0
"""On a busy machine, and where a mutant waits for good, this many times the CPU limit may pass."""
_MEMORY = 2 << 30
"""Bytes that a mutant may allocate beyond those of this process."""
_REMEMBERED = 8


class Order:
    """Puts the tests first that are likely to kill: those that killed other mutants nearby."""

    def __init__(self) -> None:
        self._latest: defaultdict[str, deque[int]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        self._kills: defaultdict[str, Counter[int]] = defaultdict(Counter)

    def of(self, mutant: Mutant, tests: Sequence[int], cost: Callable[[int], float]) -> list[int]:
        """Return tests in the order in which to try them."""
        latest, kills = self._latest[mutant.key], self._kills[mutant.module]
        places = {test: place for place, test in enumerate(latest)}
        return sorted(tests, key=lambda test: (places.get(test, _REMEMBERED), (0.02 + cost(test)) / (1 + kills[test])))

    def killed(self, mutant: Mutant, test: int) -> None:
        """Remember which test killed a mutant."""
        latest = self._latest[mutant.key]
        if test in latest:
            latest.remove(test)
        latest.appendleft(test)
        self._kills[mutant.module][test] += 1


class Runner:
    """Judges mutants in forks of this process."""

    def __init__(self, session: pytest.Session, reach: Reach, first: float, most: float) -> None:
        self._session, self._reach, self._first, self._most = session, reach, first, most
        self._order = Order()
        self._at = mmap.mmap(-1, 4)
        """Shared with the fork: the number of the test that it runs."""

    def judge(self, mutant: Mutant) -> tuple[str, list[int]]:
        """Try a mutant with its most useful tests; return the outcome and the tests that are left."""
        tests = self._reach.tests_of(mutant)
        if not tests:
            return "no test", []
        ordered = self._order.of(mutant, tests, self._reach.cost)
        chosen, end = self._worth(ordered, self._first), self._worth(ordered, self._most)
        return self.tried(mutant, ordered[:chosen]), ordered[chosen:end]

    def _worth(self, tests: Sequence[int], seconds: float) -> int:
        """Return how many of the tests, one at least, take so many seconds together."""
        spent = itertools.accumulate(map(self._reach.cost, tests))
        return next((number for number, total in enumerate(spent, 1) if total >= seconds), len(tests))

    def tried(self, mutant: Mutant, tests: Sequence[int]) -> str:
        """Return what became of a mutant with given tests."""

        def work() -> int:
            apply(mutant)
            for test, following in zip(tests, [*tests[1:], None], strict=True):
                self._at[:] = test.to_bytes(4, "little")
                items = self._session.items
                if run(items[test], None if following is None else items[following], self._session):
                    return 1
            return 0

        code = forked(work, _SLOWER * sum(map(self._reach.cost, tests)) + _MORE)
        outcome = {0: "survived", 3: "not run", -1: "timed out"}.get(code, "killed")
        if outcome in ("killed", "timed out"):
            self._order.killed(mutant, int.from_bytes(self._at[:], "little"))
        return outcome


def forked(work: Callable[[], int], seconds: float) -> int:
    """Run something in a fork of this process without its output.

    Returns:
        Its code, 3 where it raised an exception, or -1 after ``seconds`` of CPU time.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, used + _MEMORY))
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
            code = work()
        finally:
            os._exit(code)
    descriptor = os.pidfd_open(pid)
    ready, _, _ = select.select([descriptor], [], [], _WALL * seconds)
    os.close(descriptor)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return -1 if not ready or code in (-signal.SIGXCPU, -signal.SIGKILL) else code


class Plugin:
    """Takes the place of pytest's loop over the collected tests."""

    def __init__(self, options: argparse.Namespace, paths: Sequence[Path]) -> None:
        self.options, self.paths = options, paths

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the mutants."""
        found = [mutant for path in self.paths for mutant in mutants(path)]
        if self.options.again:
            survivors = named_in(self.options.again)
            found = [mutant for mutant in found if without_line(str(mutant)) in survivors]
        total = len(found)
        if self.options.sample and self.options.sample < total:
            found = random.Random(self.options.seed).sample(found, self.options.sample)
        places = {path: place for place, path in enumerate(self.paths)}
        found.sort(key=lambda mutant: (places[mutant.path], mutant.line))
        reach = Reach.measured(session, {mutant.module for mutant in found}, self.options.reach)
        say(f"# {len(reach.costs)} of {len(session.items)} tests pass and are used: {sum(reach.costs.values()):.0f} s")
        gc.collect()
        gc.freeze()
        runner = Runner(session, reach, self.options.first, self.options.most)
        outcomes: dict[Mutant, str] = {}
        later: dict[Mutant, list[int]] = {}
        started = time.monotonic()
        for number, mutant in enumerate(found, 1):
            outcomes[mutant], left = runner.judge(mutant)
            if outcomes[mutant] == "survived" and left:
                later[mutant] = left
            elif outcomes[mutant] != "killed":
                say(f"{outcomes[mutant]}: {mutant}")
            if number % 100 == 0:
                say(f"# {number} of {len(found)} after {time.monotonic() - started:.0f} s; {len(later)} for later")
        for mutant, left in later.items():
            outcomes[mutant] = runner.tried(mutant, left)
            if outcomes[mutant] != "killed":
                say(f"{outcomes[mutant]}: {mutant}")
        for line in table(outcomes):
            say(line)
        say(f"# {total} mutants, {len(found)} tried in {time.monotonic() - started:.0f} s")
        return True


def table(outcomes: dict[Mutant, str]) -> list[str]:
    """Return the counts by module, and of all."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for mutant, outcome in outcomes.items():
        counts[mutant.module][outcome] += 1
        counts["all"][outcome] += 1
    rows = [(module, count) for module, count in counts.items() if module != "all"] + [("all", counts["all"])]
    return [f"# {module}: {count.total()}: " + ", ".join(f"{count[name]} {name}" for name in OUTCOMES)
            for module, count in rows]  # fmt: skip


def named_in(log: Path) -> set[str]:
    """Return the mutants that no test killed in an earlier run, from its output, without the numbers of their lines."""
    lines = log.read_text(encoding="utf-8").splitlines()
    return {
        without_line(line.partition(": ")[2])
        for line in lines
        if line.startswith(("survived: ", "no test: ", "timed out: ", "not run: "))
    }


def without_line(mutant: str) -> str:
    """Return the text of a mutant without the number of its line, which changes with the file."""
    return re.sub(r"\.py:\d+ ", ".py ", mutant)


def say(text: str) -> None:
    """Print a line past pytest's capture."""
    os.write(_OUT, f"{text}\n".encode())


_OUT = os.dup(1)


def main(arguments: Sequence[str]) -> int:
    """Print the survivors; return the exit code of pytest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path, help="modules, or folders of modules, below operator/")
    parser.add_argument("--tests", nargs="+", required=True, help="arguments of pytest: files, folders, options")
    parser.add_argument("--sample", type=int, help="how many mutants to draw; default: all")
    parser.add_argument("--again", type=Path, metavar="LOG", help="only mutants that survived in this earlier output")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--first", type=float, default=0.5, help="seconds of tests before a mutant waits; default: 0.5")
    parser.add_argument("--most", type=float, default=math.inf, help="seconds of tests for a mutant; default: all")
    parser.add_argument("--reach", type=Path, metavar="FILE", help="where the lines of each test are kept")
    options = parser.parse_args(arguments)
    paths = [file.resolve() for source in options.sources for file in (sorted(source.rglob("*.py")) or [source])]
    # The same examples each time, and none made smaller: that a test fails is enough.
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutants", deadline=None, database=None, derandomize=True, phases=phases)
    quick = ["-q", "-s", "--assert=plain", "--tb=native", "-p", "no:cacheprovider", "-p", "no:xdist"]
    return pytest.main([*quick, "--hypothesis-profile=mutants", *options.tests], plugins=[Plugin(options, paths)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
