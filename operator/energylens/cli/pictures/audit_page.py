"""An audit as a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence

from energylens.api.words import counted
from energylens.audit.assessment import Assessment
from energylens.audit.hosts import HostPower
from energylens.cli.inputs.rates import HOURS_PER_MONTH, Rates
from energylens.cli.pictures.charts import svg
from energylens.cli.pictures.page import charts, heading, page, paragraph, table, tiles
from energylens.cli.text.audit import VERDICTS, pods_of, summary, table_rows
from energylens.cli.text.hosts import hosts_under, measured_host_lines
from energylens.cli.text.money import host_lines

_NAMES = {"GPUS": "GPUs", "W": "W", "J/TOKEN": "J/token", "KWH/MONTH": "kWh/month"}
"""Headings whose units keep their own case."""


def audit_page(
    found: Sequence[Assessment],
    rates: Rates,
    source: str,
    failures: Sequence[str],
    made: str,
    hosts: Sequence[HostPower] = (),
) -> str:
    """Return the page; ``made`` says when, from what and by which version."""
    first, *rest = summary(found, rates)
    body = [paragraph(first, "muted"), tiles(_tiles(found, rates)), *(paragraph(text.strip()) for text in rest)]
    body += [paragraph(text.strip()) for text in measured_host_lines(hosts_under(hosts, pods_of(found)), rates)]
    body += [paragraph(text.strip()) for text in host_lines(rates, sum(each.served.gpus for each in found))]
    drawn = [each for each in found if each.now is not None]
    if drawn:
        from energylens.cli.pictures.audit_charts import power_figure

        body.append(
            charts(
                [
                    (
                        svg(power_figure(drawn)),
                        "Mean power of each served model now, and with the plan that would do the same load; the line "
                        "is the plan's 80 % interval.",
                    )
                ]
            )
        )
    body += [heading("Served models"), table(*_models(found, rates))]
    header = ("What", "Verdict", "Reason", "Notes")
    noted = 4 if any(each.notes or each.served.notes for each in found) else 3
    body += [heading("Why"), table(header[:noted], [_reasons(each)[:noted] for each in found])]
    if failures:
        body += [heading("Not read"), *(paragraph(text, "bad") for text in failures)]
    body.append(
        paragraph(
            f"{rates.text[0].upper()}{rates.text[1:]}; a month has {HOURS_PER_MONTH:.0f} hours at the mean power of "
            "the window. "
            + (f"Measured from {source}. " if source else "No metrics were read. ")
            + "Figures with ~ are predicted. Each plan is made on the GPUs that its model holds and on free ones.",
            "muted",
        )
    )
    return page("EnergyLens audit", body, made)


def _tiles(found: Sequence[Assessment], rates: Rates) -> list[tuple[str, str]]:
    known = [each.now.watts for each in found if each.now is not None]
    watts = sum(known)
    planned = [each for each in found if each.plan is not None]
    saving = [each for each in found if each.verdict == "Saves"]
    saved = sum(each.saved_watts or 0.0 for each in saving)
    idle = sum(each.served.gpus for each in found if each.verdict == "Idle")
    month = rates.month(watts)
    spent = [(f"{month['money']:,.0f}", "money a month")] if "money" in month else []
    spent += [(f"{month['kilogramsCO2'] / 1000:,.1f} t", "CO2e a month")] if "kilogramsCO2" in month else []
    now = [
        (f"{watts / 1000:.1f} kW", "mean power now"),
        (f"{month['kilowattHours']:,.0f} kWh", "a month"),
        *spent,
    ]
    return [
        *(now if known else [("-", "mean power now: not known")]),
        (f"{saved / 1000:.1f} kW", f"less with {len(saving)} of {counted(len(planned), 'plan')}")
        if planned
        else ("-", "no plan was compared"),
        (str(idle), "GPUs under idle models"),
    ]


def _models(found: Sequence[Assessment], rates: Rates) -> tuple[list[str], list[list[str]]]:
    """Return the table with the savings next to the name, so that a narrow window shows both."""
    header, *rows = table_rows(found, rates)
    order = [0, len(header) - 1, len(header) - 2, *range(1, len(header) - 2)]
    names = [_NAMES.get(header[at], header[at].capitalize()) for at in order]
    return names, [[row[at].replace("NVIDIA-", "") for at in order] for row in rows]


def _reasons(found: Assessment) -> tuple[str, ...]:
    owner = found.served.owner
    return (
        f"{owner.namespace}/{owner.name}",
        VERDICTS[found.verdict],
        found.reason,
        "; ".join(found.notes or found.served.notes),
    )
