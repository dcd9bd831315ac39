"""The external metrics API of a cluster, served by a few lines on loopback: one metric, whose value a test sets.

The API server's aggregator asks a Service of type ExternalName at its name, so that no pod and no proxy is needed.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.certificates import without_key_identifiers

from energylens_dev.devcluster import Kubectl, eventually

GROUP, VERSION = "external.metrics.k8s.io", "v1beta1"
METRIC = "requests_per_second"
_SERVICE = {"name": "external-metrics", "namespace": "kube-system"}


@dataclass
class ExternalMetric:
    """The metric's value over all replicas, as autoscalers see it."""

    value: int
    asked: int = 0
    """Requests of the value so far."""


@contextmanager
def external_metrics(admin: Kubectl, folder: Path, value: int) -> Iterator[ExternalMetric]:
    """Serve the metric through the API server, and take the API away afterwards."""
    metric = ExternalMetric(value)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(metric))
    server.socket = without_key_identifiers(folder).context().wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        for body in _objects(server.server_address[1]):
            admin.apply(body)
        eventually(lambda: admin.run("get", "--raw", f"/apis/{GROUP}/{VERSION}"))
        yield metric
    finally:
        admin.run("delete", "apiservice", f"{VERSION}.{GROUP}", "--ignore-not-found")
        admin.run("delete", "service", "-n", _SERVICE["namespace"], _SERVICE["name"], "--ignore-not-found")
        server.shutdown()
        server.server_close()


def _objects(port: int) -> Iterator[dict[str, Any]]:
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _SERVICE,
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
    }
    yield {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": f"{VERSION}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "version": VERSION,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": True,
            "service": {**_SERVICE, "port": port},
        },
    }


def _handler(metric: ExternalMetric) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0].rstrip("/")
            if path.endswith(f"/{METRIC}"):
                metric.asked += 1
                self._answer(_values(metric.value))
            elif path == f"/apis/{GROUP}/{VERSION}":
                self._answer(_RESOURCES)
            else:
                self.send_error(404)

        def _answer(self, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output free of requests."""

    return Handler


def _values(value: int) -> dict[str, Any]:
    found = {"metricName": METRIC, "metricLabels": {}, "timestamp": "2026-01-01T00:00:00Z", "value": str(value)}
    return {"kind": "ExternalMetricValueList", "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}, "items": [found]}


_RESOURCES: dict[str, Any] = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": f"{GROUP}/{VERSION}",
    "resources": [
        {"name": METRIC, "singularName": "", "namespaced": True, "kind": "ExternalMetricValueList", "verbs": ["get"]}
    ],
}
