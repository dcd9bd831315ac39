"""Carbon intensity by Electricity Maps and WattTime: their answers, refusals, and kept answers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from tests.support.grid_services import FREE_TOKEN, HOURS, PASSWORD, TOKEN, USER, GridServices, grid_services
from tests.unit.cli.conftest import Run, Write, chat, run

from energylens.budget.carbon import parse_forecast
from energylens.cli.errors import InputError
from energylens.cli.inputs.grid import intensity, place_of
from energylens.measure.grid import GRAMS_PER_POUND, GridCredentials, GridError, GridHttp, GridPlace, grid_place

NOW = datetime(2026, 11, 27, 18, 20, tzinfo=UTC)
DE = GridPlace("electricitymaps", "DE")
CAISO = GridPlace("watttime", "CAISO_NORTH")
FORECAST = "/v3/carbon-intensity/forecast"
POOLS = {"nodes": [{"product": "H100", "gpus": 8, "count": 2}]}


@pytest.fixture
def services() -> Iterator[GridServices]:
    with grid_services() as found:
        yield found


@pytest.fixture
def environment(services: GridServices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name in ("http_proxy", "HTTP_PROXY", "ELECTRICITYMAPS_TOKEN_FILE", "WATTTIME_PASSWORD_FILE"):
        monkeypatch.delenv(name, raising=False)
    found = {
        "ELECTRICITYMAPS_URL": services.url,
        "ELECTRICITYMAPS_TOKEN": TOKEN,
        "WATTTIME_URL": services.url + "/",
        "WATTTIME_USER": USER,
        "WATTTIME_PASSWORD": PASSWORD,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


def refusal(place: GridPlace, environment: dict[str, str]) -> str:
    with pytest.raises(InputError) as caught:
        intensity(place, environment, NOW)
    assert "\n" not in str(caught.value)
    assert not any(secret in str(caught.value) for secret in (TOKEN, FREE_TOKEN, PASSWORD))
    return str(caught.value)


def test_a_forecast_of_electricity_maps_is_hourly(environment: dict[str, str]) -> None:
    found = intensity(DE, environment, NOW)
    assert found.times == tuple(datetime.fromisoformat(text) for text in HOURS)
    assert found.grams_per_kwh == (300.0, 350.0, 400.0)
    assert found.covers(NOW, NOW + timedelta(hours=2))


def test_watttime_is_converted_from_pounds_and_taken_by_the_hour(environment: dict[str, str]) -> None:
    found = intensity(CAISO, environment, NOW)
    assert found.times == tuple(datetime(2026, 11, 27, hour, tzinfo=UTC) for hour in (18, 19))
    assert found.grams_per_kwh == pytest.approx((453.59237, 0.8 * 453.59237))
    assert pytest.approx(453.592, abs=1e-3) == GRAMS_PER_POUND


def test_a_free_token_reads_the_last_hours(environment: dict[str, str]) -> None:
    environment["ELECTRICITYMAPS_TOKEN"] = FREE_TOKEN
    said = refusal(DE, environment)
    assert "refused the token for the forecast of zone DE (status 401): Invalid auth-token" in said
    assert "electricitymaps:DE:history" in said
    history = place_of("electricitymaps:DE:history")
    assert history is not None
    assert intensity(history, environment, NOW).grams_per_kwh == (300.0, 350.0, 400.0)


@pytest.mark.parametrize(
    ("place", "path", "answer", "said"),
    [
        (DE, FORECAST, (200, {"zone": "US-CAL-CISO", "forecast": []}), "for zone 'US-CAL-CISO' instead of DE"),
        (DE, FORECAST, (200, {"zone": "DE"}), "answered without forecast"),
        (DE, FORECAST, (200, {"zone": "DE", "forecast": []}), "the answer holds no values"),
        (DE, FORECAST, (200, {"zone": "DE", "forecast": ["x"]}), "a row of forecast that is not an object: 'x'"),
        (DE, FORECAST, (200, [1]), "not a JSON object"),
        (DE, FORECAST, (200, b"<html>"), "not a JSON object"),
        (DE, FORECAST, (200, b"[" * 100_000), "not a JSON object"),
        (DE, FORECAST, (502, b"<html>"), "answered with status 502"),
        (DE, FORECAST, (302, b""), "answered with status 302"),
        (DE, FORECAST, (429, {"message": "Too\nmany"}), "too many were made (status 429): Too many; retry after '60'"),
        (CAISO, "/login", (200, {"expires": 3}), "answered the login without a token"),
        (CAISO, "/login", (200, {"token": "a\r\nX-Evil: 1"}), "answered the login without a token"),
        (CAISO, "/v3/forecast", (200, {"data": []}), "answered without meta"),
        (CAISO, "/v3/forecast", (400, {"detail": "bad region"}), "region CAISO_NORTH (status 400): bad region"),
    ],
)
def test_a_refusal_is_one_line(
    services: GridServices,
    environment: dict[str, str],
    place: GridPlace,
    path: str,
    answer: tuple[int, object],
    said: str,
) -> None:
    services.overrides[path] = answer
    services.headers = {"Retry-After": "60"}
    title = "Electricity Maps" if place is DE else "WattTime"
    message = refusal(place, environment)
    assert message.startswith(f"{title}: ")
    assert said in message


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"datetime": "2026-11-27T18:00:00", "carbonIntensity": 1}, "not a time with a zone"),
        ({"datetime": "noon", "carbonIntensity": 1}, "not a time with a zone"),
        ({"datetime": HOURS[0], "carbonIntensity": None}, "carbonIntensity None at 2026-11-27T18:00:00.000Z"),
        ({"datetime": HOURS[0], "carbonIntensity": -1}, "no number from 0 to 1e+06"),
        ({"datetime": HOURS[0], "carbonIntensity": True}, "no number from 0 to 1e+06"),
        ({"datetime": HOURS[0], "carbonIntensity": 10**400}, "no number from 0 to 1e+06"),
        ({"datetime": "0001-01-01T00:00:00+05:00", "carbonIntensity": 1}, "not a time with a zone"),
        ({"datetime": "2026-11-27T15:00:00Z", "carbonIntensity": 1}, "no value from 2026-11-27T16:00Z"),
    ],
)
def test_a_wrong_row_is_named(
    services: GridServices, environment: dict[str, str], row: dict[str, object], said: str
) -> None:
    good = {"datetime": HOURS[1], "carbonIntensity": 300}
    services.overrides[FORECAST] = (200, {"zone": "DE", "forecast": [row, good]})
    assert said in refusal(DE, environment)


@pytest.mark.parametrize(("key", "value"), [("units", "g_per_kwh"), ("signal_type", "health_damage"), ("region", "X")])
def test_another_signal_or_unit_of_watttime_is_refused(
    services: GridServices, environment: dict[str, str], key: str, value: str
) -> None:
    meta = {"region": "CAISO_NORTH", "signal_type": "co2_moer", "units": "lbs_co2_per_mwh", key: value}
    services.overrides["/v3/forecast"] = (200, {"meta": meta, "data": []})
    assert f"answered with {key} '{value}' instead of" in refusal(CAISO, environment)


def test_a_region_that_the_account_lacks_names_the_free_one(environment: dict[str, str]) -> None:
    said = refusal(GridPlace("watttime", "PJM_DC"), environment)
    assert "refused the forecast of region PJM_DC (status 403): You do not have access" in said
    assert "accounts read CAISO_NORTH only" in said


def test_a_wrong_password_names_the_user(environment: dict[str, str]) -> None:
    environment["WATTTIME_PASSWORD"] = "wrong"
    assert "refused the user 'site' or the password (status 403)" in refusal(CAISO, environment)


def test_an_unknown_zone_has_the_services_words(environment: dict[str, str]) -> None:
    said = refusal(GridPlace("electricitymaps", "XX"), environment)
    assert said == "Electricity Maps: has no forecast of zone XX (status 404): Zone 'XX' does not exist."


def test_a_service_that_is_not_there(environment: dict[str, str]) -> None:
    environment["ELECTRICITYMAPS_URL"] = "http://127.0.0.1:1"
    assert "Electricity Maps: Cannot connect to host 127.0.0.1:1" in refusal(DE, environment)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://api.example.com", "would send credentials in clear text: use https"),
        ("ftp://127.0.0.1", "is not a URL of http or https"),
        ("https://[::1", "is not a URL of http or https"),
        ("https://a:99999999", "is not a URL of http or https"),
    ],
)
def test_an_address_that_leaks_credentials_is_refused(environment: dict[str, str], address: str, said: str) -> None:
    environment["ELECTRICITYMAPS_URL"] = address
    assert said in refusal(DE, environment)


async def test_limits_of_time_and_size(services: GridServices, environment: dict[str, str]) -> None:
    del environment
    credentials = GridCredentials(TOKEN)
    services.overrides[FORECAST] = (200, b" " * 5000)
    async with GridHttp(services.url, credentials, max_bytes=4000) as http:
        with pytest.raises(GridError, match="answered with more than 4000 bytes"):
            await http.read(DE)
    async with GridHttp(services.url, credentials, timeout_seconds=1e-9) as http:
        with pytest.raises(GridError, match="no answer within 1e-09 s"):
            await http.read(DE)


@pytest.mark.parametrize(
    ("variables", "place", "said"),
    [
        (
            {"ELECTRICITYMAPS_TOKEN": " "},
            DE,
            "electricitymaps:DE needs ELECTRICITYMAPS_TOKEN, or",
        ),
        ({"ELECTRICITYMAPS_TOKEN": "a\nb"}, DE, "ELECTRICITYMAPS_TOKEN: has more than one line"),
        ({"ELECTRICITYMAPS_TOKEN_FILE": "/no/such"}, DE, "ELECTRICITYMAPS_TOKEN_FILE=/no/such: No such file"),
        ({"WATTTIME_USER": ""}, CAISO, "needs the user of an account"),
        ({"WATTTIME_USER": "a:b"}, CAISO, "needs the user of an account"),
        ({"WATTTIME_PASSWORD": ""}, CAISO, "watttime:CAISO_NORTH needs WATTTIME_PASSWORD"),
    ],
)
def test_missing_credentials_name_the_variable(
    services: GridServices, environment: dict[str, str], variables: dict[str, str], place: GridPlace, said: str
) -> None:
    assert said in refusal(place, environment | variables)
    assert services.paths == []


def test_a_token_in_a_file(environment: dict[str, str], tmp_path: Path) -> None:
    del environment["ELECTRICITYMAPS_TOKEN"]
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert intensity(DE, environment | {"ELECTRICITYMAPS_TOKEN_FILE": str(file)}, NOW).highest == 400.0
    file.write_bytes(b"\xff")
    assert "not text" in refusal(DE, environment | {"ELECTRICITYMAPS_TOKEN_FILE": str(file)})


def test_an_answer_is_kept_for_half_an_hour(services: GridServices, environment: dict[str, str]) -> None:
    first = intensity(DE, environment, NOW)
    (file,) = (Path(environment["XDG_CACHE_HOME"]) / "energylens" / "grid").iterdir()
    assert TOKEN not in file.name + file.read_text()

    def asked_again(age: timedelta) -> bool:
        before = len(services.paths)
        os.utime(file, (moment := (NOW - age).timestamp(), moment))
        assert intensity(DE, environment, NOW) == first
        return len(services.paths) > before

    assert not asked_again(timedelta(minutes=30))
    assert asked_again(timedelta(minutes=31))
    assert asked_again(timedelta(minutes=-1)), "a file of the future says nothing about its age"
    file.write_text("time,gr")
    assert asked_again(timedelta(0)), "a damaged file is read again"


def test_other_credentials_get_no_kept_answer(environment: dict[str, str]) -> None:
    intensity(DE, environment, datetime.now(UTC))  # noqa: TID251
    environment["ELECTRICITYMAPS_TOKEN"] = "stranger"
    assert "refused the token" in refusal(DE, environment)


def test_a_folder_that_cannot_be_written_keeps_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert intensity(DE, environment, NOW).highest == 400.0


@pytest.mark.parametrize(
    "text",
    ["electricitymaps:", "electricitymaps:D E", "electricitymaps:DE:now", "electricitymaps:a/../b", "electricitymaps"],
)
def test_a_wrong_place_is_named(text: str) -> None:
    with pytest.raises(GridError, match="must be electricitymaps:ZONE or electricitymaps:ZONE:history"):
        grid_place(text)
    with pytest.raises(InputError, match="must be watttime:REGION"):
        place_of(text.replace("electricitymaps", "watttime").replace(":DE:now", ":A:history"))


@pytest.mark.parametrize("command", ["plan", "fleet"])
def test_plans_take_the_mean_of_a_service(
    environment: dict[str, str], arithmetic: Run, write: Write, command: str
) -> None:
    del environment
    files = "-f", write("chat.yaml", [chat()]), "--inventory", write("pools.yaml", POOLS)
    answer = arithmetic(command, *files, "--grid", "electricitymaps:DE")
    assert answer.exit_code == 0, answer.output
    assert (
        "350 g CO2e per kWh, the mean of the forecast of Electricity Maps for DE (average of consumption, life cycle), "
        "2026-11-27 18:00 to 2026-11-27 21:00 UTC"
    ) in answer.output
    body = json.loads(arithmetic(command, *files, "--grid", "electricitymaps:DE", "-o", "json").output)
    cost = (body[0] if isinstance(body, list) else body)["cost"]
    assert cost["grid"]["gramsPerKilowattHour"] == 350.0
    assert cost["perMonth"]["kilogramsCO2"] == pytest.approx(0.35 * cost["perMonth"]["kilowattHours"])


@pytest.mark.parametrize("command", ["plan", "fleet", "status", "budget", "audit", "ui"])
def test_a_refusal_ends_any_command_in_one_line(environment: dict[str, str], write: Write, command: str) -> None:
    del environment
    files = ["-f", write("chat.yaml", [chat()])] if command in ("plan", "fleet") else []
    answer = run(command, *files, "--grid", "electricitymaps:XX")
    assert answer.exit_code == 2
    assert "has no forecast of zone XX (status 404): Zone 'XX' does not exist." in answer.output
    assert len(answer.output.splitlines()) == 1


def test_the_command_writes_what_budgets_read(environment: dict[str, str]) -> None:
    text = run("grid", "watttime:CAISO_NORTH").output
    assert parse_forecast(text).grams_per_kwh == pytest.approx((453.592, 362.874))
    body = yaml.safe_load(run("grid", "electricitymaps:DE", "-o", "configmap", "-n", "chat", "--name", "de").output)
    assert body["metadata"]["name"] == "de"
    assert body["metadata"]["namespace"] == "chat"
    assert parse_forecast(body["data"]["forecast.csv"]) == intensity(DE, environment, datetime.now(UTC))  # noqa: TID251


def test_the_command_writes_a_file_for_kubectl(environment: dict[str, str], tmp_path: Path) -> None:
    del environment
    file = tmp_path / "grid.yaml"
    answer = run("grid", "electricitymaps:DE", "-o", "configmap", "--out", file)
    assert (answer.exit_code, answer.output) == (0, f"wrote {file}\n")
    assert yaml.safe_load(file.read_text())["kind"] == "ConfigMap"
    answer = run("grid", "electricitymaps:DE", "--out", tmp_path / "no" / "grid.csv")
    assert answer.exit_code == 2
    assert "grid.csv: No such file" in answer.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["DE"], "'DE' names no service: must be electricitymaps:ZONE"),
        (["electricitymaps:DE:history", "-o", "configmap"], "covers the past only"),
        (["watttime:"], "must be watttime:REGION"),
    ],
)
def test_the_command_names_what_is_wrong(environment: dict[str, str], arguments: list[str], said: str) -> None:
    del environment
    answer = run("grid", *arguments)
    assert (answer.exit_code, len(answer.output.splitlines())) == (2, 1)
    assert said in answer.output
