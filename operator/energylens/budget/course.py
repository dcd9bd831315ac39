"""The power of a batch job over its time, from the creation of its pods on."""

from __future__ import annotations

from energylens.budget.job_start import Phase
from energylens.records import dataclass

_JOULES_PER_WATT_HOUR = 3600.0


@dataclass(frozen=True)
class Course:
    """The planned course of a job, in seconds after the creation of its pods."""

    phases: tuple[Phase, Phase, Phase]
    """The start of the pods, the requests, and idling until the deadline."""
    longest_seconds: int
    """Until the last answer if the throughput is lower than predicted by the headroom; at least ``end_seconds``."""

    @property
    def end_seconds(self) -> int:
        """Expected time of the last answer."""
        return self.phases[0].seconds + self.phases[1].seconds

    @property
    def seconds(self) -> int:
        """Time for which the pods are expected, idling included."""
        return self.end_seconds + self.phases[2].seconds

    @property
    def reserved_seconds(self) -> int:
        """Time for which a budget reserves power: a job that is late draws power beyond its expected time."""
        return max(self.longest_seconds, self.seconds)

    @property
    def busy_watts(self) -> float:
        """Power while the requests are served, W. The start draws less: its phase only has the rest of the energy."""
        return self.phases[1].watts

    @property
    def idle_watts(self) -> float:
        """Power after the last answer, W; 0 if the pods end then."""
        return self.phases[2].watts if self.phases[2].seconds else 0.0

    def watt_hours(self, since: float, until: float) -> float:
        """Return the planned energy between two times after the creation of the pods, Wh."""
        total, begin = 0.0, 0.0
        for phase in self.phases:
            end = begin + phase.seconds
            total += phase.watts * max(0.0, min(until, end) - max(since, begin))
            begin = end
        return total / _JOULES_PER_WATT_HOUR


@dataclass(frozen=True)
class JobFigures:
    """Figures of a job in its plan and its spec."""

    within_seconds: int
    """``completeWithinSeconds``."""
    idles: bool
    """Whether the pods stay until the deadline."""
    completion_seconds: int
    """Until the last answer, by the plan."""
    start_seconds: int
    """Start of the pods, by the plan."""
    longest_seconds: int | None
    """None in plans of older releases."""
    energy_watt_hours: int
    watts: float
    """Power while the requests are served, W."""
    idle_watts: float


def course_of(job: JobFigures, start_seconds: int | None = None) -> Course:
    """Return the course of a job.

    Args:
        job: Its figures.
        start_seconds: Stated or measured time of the start, which replaces the plan's estimate; None for the estimate.
    """
    stated = job.start_seconds
    serving = max(0, job.completion_seconds - stated)
    begin = stated if start_seconds is None else start_seconds
    planned_idle = max(0, job.within_seconds - stated - serving) if job.idles else 0
    joules = 3600.0 * job.energy_watt_hours - job.watts * serving - job.idle_watts * planned_idle
    starting = max(0.0, joules) / stated if stated else 0.0
    slow = max(serving, job.within_seconds - stated) if job.longest_seconds is None else job.longest_seconds - stated
    phases = (
        Phase(begin, starting),
        Phase(serving, job.watts),
        Phase(max(0, job.within_seconds - begin - serving) if job.idles else 0, job.idle_watts),
    )
    return Course(phases, begin + max(slow, serving))
