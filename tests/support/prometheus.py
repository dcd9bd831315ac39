"""A real Prometheus server that scrapes every second, and what tests ask of it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tests.support.operator_process import end

from energylens_dev.devcluster import StreamProgress, eventually
from energylens_dev.devcluster.binaries import Binaries
from energylens_dev.devcluster.ports import free_port

Object = dict[str, Any]


@dataclass
class Prometheus:
    """A running server."""

    url: str
    targets: Path
    """Folder of the files that name its targets."""

    def scrape(self, job: str, url: str) -> None:
        """Scrape one more URL from now on."""
        parts = urllib.parse.urlsplit(url)
        group = {"targets": [parts.netloc], "labels": {"job": job, "__metrics_path__": parts.path}}
        (self.targets / f"{job}.json").write_text(json.dumps([group]))

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of the HTTP API."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
            document = json.load(answer)
        assert document["status"] == "success", document
        return document["data"]

    def values(self, expression: str) -> list[tuple[Object, float]]:
        """Return labels and value of every series of an instant query."""
        return [(each["metric"], float(each["value"][1])) for each in self.ask("query", query=expression)["result"]]


def promtool() -> Path:
    """Return promtool, building it when it is found nowhere."""
    return Binaries(StreamProgress(sys.stderr)).ensure(["promtool"])["promtool"]


@contextmanager
def prometheus(directory: Path, exporter: str) -> Iterator[Prometheus]:
    """Run a server that scrapes an exporter as the job ``dcgm``, as if it were a pod in ``monitoring``."""
    program = Binaries(StreamProgress(sys.stderr)).ensure(["prometheus"])["prometheus"]
    folder = directory / "prometheus"
    targets = folder / "targets"
    targets.mkdir(parents=True, exist_ok=True)
    port = free_port()
    own = {
        "targets": [urllib.parse.urlsplit(exporter).netloc],
        "labels": {"pod": "exporter-0", "namespace": "monitoring"},
    }
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [
            {"job_name": "dcgm", "metrics_path": urllib.parse.urlsplit(exporter).path, "static_configs": [own]},
            {
                "job_name": "files",
                "honor_labels": True,
                "file_sd_configs": [{"files": [str(targets / "*.json")], "refresh_interval": "1s"}],
            },
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        str(program),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        server = Prometheus(f"http://127.0.0.1:{port}", targets)

        def is_ready() -> bool:
            assert process.poll() is None, (folder / "log").read_text()
            try:
                with urllib.request.urlopen(f"{server.url}/-/ready", timeout=5) as answer:
                    return bool(answer.status == 200)
            except OSError as error:
                raise AssertionError(str(error)) from error

        try:
            eventually(is_ready)
            yield server
        finally:
            end(process)
