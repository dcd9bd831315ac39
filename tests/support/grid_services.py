"""Electricity Maps and WattTime on loopback, with the answers of their API references."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.support.loopback import serving

TOKEN = "em-token-1"
FREE_TOKEN = "em-free-2"
USER, PASSWORD = "site", "pass:wörd"
JWT = "jwt.of.site"
HOURS = tuple(f"2026-11-27T{hour:02d}:00:00.000Z" for hour in (18, 19, 20))

Answer = tuple[int, object]


class GridServices:
    """Both services; ``overrides`` replaces the answer of a path."""

    def __init__(self) -> None:
        """Answer as the references say."""
        self.url = ""
        self.overrides: dict[str, Answer] = {}
        self.headers: dict[str, str] = {}
        """Headers of each answer."""
        self.paths: list[str] = []
        """Paths of the requests so far."""

    def answer(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        """Return status and body of a request."""
        self.paths.append(path)
        if path in self.overrides:
            return self.overrides[path]
        match path:
            case "/v3/carbon-intensity/forecast" | "/v3/carbon-intensity/history":
                return self._electricity_maps(path.rpartition("/")[2], query, headers)
            case "/login":
                basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                if headers.get("Authorization") != f"Basic {basic}":
                    return 403, {"error": "Invalid username or password"}
                return 200, {"token": JWT}
            case "/v3/forecast":
                return self._watttime(query, headers)
        return 404, {"message": "no such path"}

    def _electricity_maps(self, span: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        token, zone = headers.get("auth-token"), query["zone"]
        if token not in (TOKEN, FREE_TOKEN) or (token == FREE_TOKEN and span == "forecast"):
            return 401, {"error": "Invalid auth-token"}
        if zone == "XX":
            return 404, {"status": "error", "message": "Zone 'XX' does not exist."}
        values = zip(HOURS, (300, 350, 400), strict=True)
        if span == "forecast":
            rows = [{"carbonIntensity": value, "datetime": time} for time, value in values]
            return 200, {"zone": zone, "forecast": rows, "updatedAt": HOURS[0]}
        common = {"zone": zone, "updatedAt": HOURS[0], "emissionFactorType": "lifecycle", "isEstimated": False}
        return 200, {"zone": zone, "history": [{**common, "carbonIntensity": v, "datetime": t} for t, v in values]}

    @staticmethod
    def _watttime(query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        if headers.get("Authorization") != f"Bearer {JWT}":
            return 401, {"error": "Bad token"}
        if query["region"] != "CAISO_NORTH":
            return 403, {"message": "You do not have access to this region"}
        times = [f"2026-11-27T{hour:02d}:{minute:02d}:00+00:00" for hour in (18, 19) for minute in range(0, 60, 5)]
        # The service begins in the middle of an hour.
        rows = [{"point_time": t, "value": 1000.0 if "T18" in t else 800.0} for t in times[3:]]
        meta = {
            "data_point_period_seconds": 300,
            "region": query["region"],
            "warnings": [],
            "signal_type": query["signal_type"],
            "model": {"date": "2023-03-01"},
            "units": "lbs_co2_per_mwh",
            "generated_at_period_seconds": 300,
            "generated_at": times[3],
        }
        return 200, {"data": rows, "meta": meta}


@contextmanager
def grid_services() -> Iterator[GridServices]:
    """Serve both services on a free port of loopback."""
    services = GridServices()

    def answer(path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> tuple[int, bytes, Mapping[str, str]]:
        status, body = services.answer(path, query, headers)
        return status, body if isinstance(body, bytes) else json.dumps(body).encode(), services.headers

    with serving(answer) as services.url:
        yield services
