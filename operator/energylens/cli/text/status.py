"""One LLMDeployment as a page of text, and as a small object for programs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from energylens.api.base import Condition
from energylens.api.llmdeployment import (
    LLMDeployment,
    LLMDeploymentStatus,
    Measured,
    PlanStatus,
    WorkloadSpec,
)
from energylens.api.llmdeployment.revision import Revision
from energylens.api.quantity import parse_quantity
from energylens.api.words import counted
from energylens.audit.hosts import HostPower
from energylens.cli.inputs.rates import NO_RATES, Rates
from energylens.cli.text.figures import figures_of
from energylens.cli.text.hosts import measured_host_lines
from energylens.cli.text.job import job_text
from energylens.cli.text.money import basis, cost_lines, cost_object
from energylens.cli.text.own_budget import own_budget_lines
from energylens.cli.text.shapes import shapes_text
from energylens.cli.text.tables import cache_text, columns, confidence_text, correction_text, joules, plan_with_hash
from energylens.cli.text.week import peak_of, week_lines
from energylens.decide.deployment.pods.job_start import AT_ONCE
from energylens.decide.deployment.reports.revisions import saved_watts

_UNKNOWN = "-"


def as_object(deployment: LLMDeployment, rates: Rates = NO_RATES) -> dict[str, Any]:
    """Return the page's content for programs; unknown figures are absent."""
    status, metadata = deployment.status, deployment.metadata
    found: dict[str, Any] = {
        "namespace": metadata.namespace,
        "name": metadata.name,
        "model": deployment.spec.model.name,
        "engine": deployment.spec.engine.type,
        "upToDate": status.observed_generation == metadata.generation,
    }
    if status.plan is not None:
        found["plan"] = status.plan.model_dump(
            mode="json", by_alias=True, exclude_none=True, exclude={"predicted", "alternatives"}
        )
    for name, part in (
        ("activeRevision", status.active_revision),
        ("previousRevision", status.previous_revision),
        ("schedule", status.schedule),
        ("predicted", status.plan.predicted if status.plan is not None else None),
        ("measured", status.measured),
        ("prediction", status.prediction),
        ("budget", status.budget),
        ("energyAccount", status.energy_account),
    ):
        if part is not None:
            found[name] = part.model_dump(mode="json", by_alias=True, exclude_none=True)
    costs = {name: cost_object(rates, *amounts) for name, amounts in _amounts(status)} if rates.is_stated else {}
    if costs:
        found["cost"] = costs
    found["conditions"] = [c.model_dump(mode="json", by_alias=True, exclude_none=True) for c in status.conditions]
    return found


def page(deployment: LLMDeployment, rates: Rates = NO_RATES, hosts: Sequence[HostPower] = ()) -> str:
    """Return the page: the spec, the plan, what runs, the measurement, hosts, budgets, and every condition."""
    status = deployment.status
    lines = [headline(deployment), *(f"  {label:<11} {text}" for label, text in facts(deployment))]
    if status.plan is not None and status.schedule is not None:
        lines += week_lines(deployment, status.plan, status.schedule)
    figures = figure_rows(deployment)
    if figures:
        rows = [tuple(name.upper() for name in FIGURE_COLUMNS), *figures]
        lines += ["", *columns(rows), *(f"  {text}" for text in about_figures(deployment))]
    costs = costs_of(deployment, rates)
    lines += ["", *costs] if costs else []
    measured = measured_host_lines(hosts, rates)
    lines += ["", *measured, "  Pods of others may run on these hosts, too."] if measured else []
    budget = budget_lines(deployment)
    lines += ["", *budget, *([""] if budget else [])]
    conditions = condition_rows(status.conditions)
    if conditions:
        lines += columns([tuple(name.upper() for name in CONDITION_COLUMNS), *conditions])
    else:
        lines.append(f"  {NOT_RECONCILED}")
    return "\n".join(lines).rstrip()


FIGURE_COLUMNS = ("Figure", "Predicted", "Measured", "Prediction off by")
CONDITION_COLUMNS = ("Condition", "Status", "Reason", "Since", "Message")
NOT_RECONCILED = "The operator has not reconciled it yet."


def headline(deployment: LLMDeployment) -> str:
    """Return the deployment's name with its model and engine."""
    metadata, spec = deployment.metadata, deployment.spec
    return f"{metadata.namespace}/{metadata.name}: {spec.model.name} on {spec.engine.type}"


def facts(deployment: LLMDeployment) -> list[tuple[str, str]]:
    """Return labelled lines for the spec, the plan and what runs; anything that a person has to act on comes early."""
    metadata, status = deployment.metadata, deployment.status
    found = [("load", _load(deployment)), ("objectives", _objectives(deployment))]
    if status.observed_generation != metadata.generation:
        seen = "no generation" if status.observed_generation is None else f"generation {status.observed_generation}"
        text = f"the spec is at generation {metadata.generation}; the operator has reconciled {seen}"
        found.append(("outdated", text))
    # A person has to act on these, so they come before the other rows.
    found += [
        ("degraded", f"{c.reason} at generation {c.observed_generation or metadata.generation}: {c.message}")
        for c in status.conditions
        if c.type == "Degraded" and c.status == "True"
    ]
    found += [
        (_kind_of(deployment), _plan(status.plan)),
        ("running", _running(deployment)),
        *_replaced(status),
        *_verifying(status),
    ]
    if status.plan is None:
        return found
    if status.plan.job is not None:
        start = status.job_start
        begin = status.plan_adoption_time if start is None else start.start_time
        found.append(("job", job_text(status.plan.job, begin)))
        has_choice = start is not None and start.reason != AT_ONCE
        found += [("start", f"{start.message} ({start.reason})")] if start is not None and has_choice else []
    return [*found, *_about(status.plan)]


def figure_rows(deployment: LLMDeployment) -> list[tuple[str, ...]]:
    """Return a row of :data:`FIGURE_COLUMNS` for each figure; none without a plan."""
    return [
        (
            figure.name,
            figure.predicted or _UNKNOWN,
            figure.measured or _UNKNOWN,
            _UNKNOWN if figure.error_percent is None else f"{figure.error_percent:+d} %",
        )
        for figure in figures_of(deployment)
    ]


def about_figures(deployment: LLMDeployment) -> list[str]:
    """Return when the figures were measured, and which corrections from measurement the predictions include."""
    learned = correction_text(deployment.status.plan)
    return [
        _window(deployment),
        *([f"predicted figures include learned corrections: {learned}"] if learned else []),
    ]


def costs_of(deployment: LLMDeployment, rates: Rates) -> list[str]:
    """Return lines of money and carbon, predicted and measured; no lines without prices."""
    if not rates.is_stated:
        return []
    costs = [line for name, found in _amounts(deployment.status) for line in cost_lines(rates, *found, label=name)]
    return [*costs, *basis(rates)] if costs else []


def _amounts(status: LLMDeploymentStatus) -> Iterator[tuple[str, tuple[float, int, float | None]]]:
    """Yield power, W, GPUs, and energy per output token, J, of the plan and of the last window."""
    plan, measured = status.plan, status.measured
    if plan is None:
        return
    predicted = plan.predicted
    yield "predicted", (predicted.power_watts, plan.gpus, float(parse_quantity(predicted.joules_per_output_token)))
    if measured is not None and measured.power_watts is not None:
        joules_each = measured.joules_per_output_token
        yield (
            "measured",
            (measured.power_watts, plan.gpus, None if joules_each is None else float(parse_quantity(joules_each))),
        )


def _about(plan: PlanStatus) -> list[tuple[str, str]]:
    """Return the utilization of the replicas, the size of their KV caches, and how far the figures can be trusted."""
    busy, cache = plan.predicted.utilization_percent, cache_text(plan)
    found = [("capacity", f"{busy} % used at the load")] if busy is not None else []
    found += [("KV cache", cache)] if cache else []
    found += [("network", plan.inter_node_network)] if plan.inter_node_network else []
    return [*found, ("confidence", confidence_text(plan))]


def _rate(workload: WorkloadSpec) -> str:
    if workload.job is not None:
        return f"{counted(workload.job.requests, 'request')} within {workload.job.complete_within_seconds} s"
    if workload.concurrency is not None:
        return f"{counted(workload.concurrency, 'request')} in flight"
    return f"{workload.requests_per_second} requests per second"


def _load(deployment: LLMDeployment) -> str:
    workload = deployment.spec.workload
    rate = _rate(workload)
    if workload.profile is not None:
        rate += f" outside of the profile ({peak_of(workload)})"
    rate += "" if workload.arrival_scv is None else f" (SCV {workload.arrival_scv})"
    drafts, drafted = workload.speculative, ""
    if drafts is not None:
        drafted = f", {drafts.draft_tokens} tokens drafted per step, {drafts.acceptance_percent} % of them accepted"
    return f"{rate}, {shapes_text(workload)}{drafted}"


def _objectives(deployment: LLMDeployment) -> str:
    slo = deployment.spec.slo
    asked = [
        f"{slo.percentile} {name} <= {limit} ms"
        for name, limit in (
            ("TTFT", slo.ttft_milliseconds),
            ("ITL", slo.itl_milliseconds),
            ("TPOT", slo.tpot_milliseconds),
            ("E2E", slo.end_to_end_milliseconds),
        )
        if limit is not None
    ]
    if slo.joules_per_output_token is not None:
        asked.append(f"at most {joules(slo.joules_per_output_token)} J per output token")
    return ", ".join(asked) or "none"


def _kind_of(deployment: LLMDeployment) -> str:
    """Return the state of the plan in the status: followed, waiting for approval, or only shown."""
    status, planning = deployment.status, deployment.spec.planning
    plan, trial = status.plan, status.verification.plan if status.verification is not None else None
    if plan is not None and planning.mode == "Manual" and planning.approved_plan_hash != plan.hash and trial is None:
        return "pending"
    return "advice" if plan is not None and planning.mode == "Advisory" else "plan"


def _verifying(status: LLMDeploymentStatus) -> list[tuple[str, str]]:
    """Return the plan that is being verified on one replica, and the progress; nothing without a verification."""
    found = status.verification
    if found is None or found.plan is None:
        return []
    held = f"{counted(found.good_windows, 'window')} passed, {found.bad_windows} failed"
    return [("verifying", f"{plan_with_hash(found.plan)}: {held}; {found.message or 'nothing is known yet'}")]


def _plan(plan: PlanStatus | None) -> str:
    return "none" if plan is None else plan_with_hash(plan)


def _running(deployment: LLMDeployment) -> str:
    status = deployment.status
    active = status.active_revision
    if active is None:
        return "nothing"
    plan = status.plan
    wanted = f" of {plan.replicas}" if plan is not None and plan.hash == active.plan_hash else ""
    other = "" if wanted else f" of plan {active.plan_hash}{_layout(active)}"
    ref = active.workload_ref
    ready = active.ready_replicas or 0
    found = f"{ready}{wanted} replicas" if wanted else f"{counted(ready, 'replica')}{other}"
    verb = "is" if ready == 1 and not wanted else "are"
    text = f"{found} {verb} ready, {ref.kind} {ref.name}"
    prefill = active.prefill
    if prefill is None:
        return text
    where = f"{prefill.workload_ref.kind} {prefill.workload_ref.name}"
    return f"{text}; {prefill.ready_replicas} of {prefill.replicas} prefill replicas are ready, {where}"


def _replaced(status: LLMDeploymentStatus) -> list[tuple[str, str]]:
    """Return the plan that the running plan replaced, with its energy, and the saving if both plans were measured."""
    before = status.previous_revision
    if before is None:
        return []
    energy, tokens = before.measured_joules_per_output_token, before.measured_output_tokens_per_second
    if energy is not None and tokens is not None:
        known = f"{joules(energy)} J per output token measured at {tokens} tokens per second"
        known += _saving(float(parse_quantity(energy)), tokens, status.measured)
    else:
        known = "its energy was not measured"
        if before.joules_per_output_token is not None:
            known += f", {joules(before.joules_per_output_token)} J per output token predicted"
    return [("replaced", f"plan {before.plan_hash}{_layout(before)} on {before.replaced_time}: {known}")]


def _saving(energy: float, tokens: float, now: Measured | None) -> str:
    """Return the power saved against a measured plan; "" if the running plan has not been measured."""
    if now is None or now.joules_per_output_token is None or now.output_tokens_per_second is None:
        return ""
    saved = saved_watts(
        energy, tokens, float(parse_quantity(now.joules_per_output_token)), now.output_tokens_per_second
    )
    if saved is None:
        return f"; not comparable with the {now.output_tokens_per_second} tokens per second of now"
    return f"; the running plan takes {abs(saved):.0f} W {'less' if saved >= 0 else 'more'} at a similar load"


def _layout(active: Revision) -> str:
    if active.gpu_product is None:
        return ""
    steps = "" if active.max_batched_tokens is None else f", steps of {active.max_batched_tokens} tokens"
    return f" ({active.replicas} x {active.gpu_product} {active.layout}, max batch {active.max_batch_size}{steps})"


def _window(deployment: LLMDeployment) -> str:
    measured, off = deployment.status.measured, deployment.status.prediction
    if measured is None:
        return "Nothing was measured yet."
    windows = "" if off is None else f", {counted(off.samples, 'window')} so far"
    return (
        f"Measured {measured.window_start} to {measured.window_end}, {measured.coverage_percent} % of the GPUs "
        f"covered{windows}."
    )


def budget_lines(deployment: LLMDeployment) -> list[str]:
    """Return the power that budgets leave to the deployment, and the state of its own budget.

    Without budgets nothing is returned.
    """
    budget, own = deployment.status.budget, own_budget_lines(deployment, deployment.status.energy_account)
    if budget is None:
        return own
    said = [
        "" if budget.name is None else f"{budget.name} {'reports only' if budget.action == 'Report' else 'binds'}",
        f"{budget.allowed_power_watts} W allowed" if budget.allowed_power_watts is not None else "",
        f"{budget.used_percent} % used" if budget.used_percent is not None else "",
        f"{budget.remaining_watt_hours} Wh left" if budget.remaining_watt_hours is not None else "",
        f"next period {budget.reset_time}" if budget.reset_time is not None else "",
    ]
    return [f"  budget      {', '.join(text for text in said if text)}", *own]


def condition_rows(conditions: tuple[Condition, ...]) -> list[tuple[str, ...]]:
    """Return a row of :data:`CONDITION_COLUMNS` for each condition."""
    return [(c.type, c.status, c.reason, c.last_transition_time or _UNKNOWN, c.message) for c in conditions]
