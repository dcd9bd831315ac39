"""The queries of the chart's dashboard, filled in as Grafana would."""

from __future__ import annotations

import json
from pathlib import Path

DASHBOARD = Path(__file__).resolve().parents[2] / "charts" / "energylens" / "dashboards" / "energylens.json"


def filled_queries(namespace: str) -> dict[str, str]:
    """Return every query, and its form for one namespace.

    ``$__range``, the month so far, is that of the 28th, whatever the date: an increase over more time than there is
    data is the increase of the data.
    """
    filled = {"$__rate_interval": "1m", "$__range": f"{27 * 86_400}s", "$namespace": namespace, "$name": ".*"}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found = {target["expr"]: target["expr"] for panel in panels for target in panel.get("targets", ())}
    for variable, value in filled.items():
        found = {query: text.replace(variable, value) for query, text in found.items()}
    return found
