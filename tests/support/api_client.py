"""The API server as an administrator sees it, over kept connections: hundreds of looks a second cost little."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from energylens.cluster.resources import Resource

Object = dict[str, Any]
APPLY = "application/apply-patch+yaml"
MOST_RETRIES = 10
"""Of a request that the server asks to send again later, as client-go has it."""


class ApiError(Exception):
    """The server refused a request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status} {message}")
        self.status = status
        self.message = message


class ApiClient:
    """Requests with the credentials of a kubeconfig; any number of threads may send at a time."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.server = str(cluster["server"])
        self._address = urllib.parse.urlsplit(self.server).netloc
        self._token = user.get("token")
        self._tls = ssl.create_default_context(cadata=_decoded(cluster["certificate-authority-data"]).decode())
        if "client-certificate-data" in user:
            with tempfile.NamedTemporaryFile(suffix=".pem") as file:
                file.write(_decoded(user["client-certificate-data"]) + b"\n" + _decoded(user["client-key-data"]))
                file.flush()
                self._tls.load_cert_chain(file.name)
        self._idle: list[http.client.HTTPSConnection] = []

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Object:
        """Return the answer, after a wait where the server asks for one.

        Raises:
            ApiError: the server says no.
        """
        status, wait, raw = self._answer(method, path, body, content_type, accept)
        for _ in range(MOST_RETRIES):
            if status != http.client.TOO_MANY_REQUESTS or wait is None:
                break
            # As long as the server says, so not a poll.
            time.sleep(float(wait))
            status, wait, raw = self._answer(method, path, body, content_type, accept)
        if status >= 300:
            raise ApiError(status, _message(raw))
        found: Object = json.loads(raw) if raw else {}
        return found

    def _answer(
        self, method: str, path: str, body: Any, content_type: str, accept: str
    ) -> tuple[int, str | None, bytes]:
        """Return status, Retry-After and body of an answer."""
        headers = {"Content-Type": content_type, "Accept": accept}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        for last in (False, True):
            connection = self._connection()
            try:
                connection.request(method, path, data, headers)
                answer = connection.getresponse()
                raw = answer.read()
                break
            except (http.client.HTTPException, OSError):
                connection.close()
                # The server closes connections that nobody used for long, and a server that starts again all of them.
                self.close()
                if last:
                    raise
        self._idle.append(connection)
        return answer.status, answer.headers["Retry-After"], raw

    def close(self) -> None:
        """Close the connections that no request uses."""
        while self._idle:
            self._idle.pop().close()

    def _connection(self) -> http.client.HTTPSConnection:
        """Return a connection that no other request uses."""
        try:
            return self._idle.pop()
        except IndexError:
            return http.client.HTTPSConnection(self._address, context=self._tls, timeout=60)

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """Return an object; None where there is none."""
        try:
            return self.request("GET", resource.path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, resource: Resource, namespace: str | None = None) -> list[Object]:
        """Return all objects of a kind, in a namespace or everywhere."""
        kind = {"apiVersion": resource.api_version, "kind": resource.kind}
        return [kind | item for item in self.request("GET", resource.path(namespace))["items"]]

    def apply(self, resource: Resource, manifest: Mapping[str, Any], manager: str = "kubectl") -> Object:
        """Apply by server-side apply."""
        metadata = manifest["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"])
        return self.request("PATCH", f"{path}?fieldManager={manager}&force=true", manifest, APPLY)

    def delete(self, resource: Resource, namespace: str, name: str, *, grace_seconds: int | None = None) -> None:
        """Delete an object; nothing happens where there is none."""
        options = {} if grace_seconds is None else {"gracePeriodSeconds": grace_seconds}
        try:
            self.request("DELETE", resource.path(namespace, name), {"propagationPolicy": "Background", **options})
        except ApiError as error:
            if error.status != 404:
                raise


def _message(raw: bytes) -> str:
    """Return the message of a Status; paths that are not served are answered in plain words."""
    try:
        return str(json.loads(raw)["message"])
    except (ValueError, KeyError, TypeError):
        return raw[:200].decode(errors="replace")


def _decoded(data: str) -> bytes:
    return base64.b64decode(data)
