"""The API server over HTTP, with plain dicts: the client's typed models would reject unknown fields."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration

from energylens.cluster.answers import REQUEST_SECONDS, failure_text, message_of, object_of
from energylens.cluster.errors import (
    BusyError,
    NotFoundError,
    TransientError,
    UnauthorizedError,
    UntrustedError,
    error_for,
)
from energylens.cluster.fence import FencedRequest
from energylens.cluster.kubeconfig import UnusableConfigError
from energylens.cluster.port import FIELD_MANAGER, Identity, Object
from energylens.cluster.proxies import environment_proxy
from energylens.cluster.resources import LEASE, REVIEW, Resource, resource_of

ReadConfiguration = Callable[[], Awaitable[Configuration]]
"""Reads the credentials where they come from; raises UnusableConfigError."""

log = logging.getLogger("energylens")

PAGE = 100
"""Objects of a page of a list; each page is parsed whole."""

_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_JSON = "application/json"
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


class KubeClient:
    """A :class:`~energylens.cluster.port.ClusterPort` on a real API server; an async context manager."""

    def __init__(self, configuration: Configuration, read_again: ReadConfiguration | None = None) -> None:
        """Talk to the server of ``configuration``; see :func:`energylens.cluster.connecting.connect`.

        If the server refuses the credentials or presents an untrusted certificate, ``read_again`` is called, since
        tokens and authorities are replaced while an operator runs.
        """
        self._read_again = read_again
        self._renewal = asyncio.Lock()
        self._under_way: Counter[ApiClient] = Counter()
        self._busy_until = 0.0
        """When the server takes requests again, by the event loop's clock."""
        self.sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
        self.on_renewal: Callable[[], None] = _nobody
        """Called when other credentials are used from now on."""
        self._use(configuration)

    def _use(self, configuration: Configuration) -> None:
        # As in energylens.tls: certificates without key identifiers are accepted, and verified nevertheless.
        configuration.disable_strict_ssl_verification = True
        configuration.client_session_kwargs = {"request_class": FencedRequest, "trust_env": False}
        configuration.proxy = configuration.proxy or environment_proxy(str(configuration.host))
        self._credentials = _digest(configuration)
        self._api = ApiClient(configuration)
        self._host = str(configuration.host).rstrip("/")

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._api.close()

    async def list_objects(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        name: str | None = None,
        field_selector: str = "",
    ) -> list[Object]:
        """See the port; reads in pages, so that a large cluster never arrives as one answer.

        ``field_selector`` is such as ``spec.nodeName=a``; with ``name`` it is not used.
        """
        kind = {"apiVersion": resource.api_version, "kind": resource.kind}
        fields = field_selector if name is None else f"metadata.name={name}"
        return [kind | item async for item in self._items(resource, namespace, label_selector, _JSON, fields)]

    async def list_identities(
        self, resource: Resource, *, namespace: str | None = None, label_selector: str = ""
    ) -> dict[tuple[str, str], Identity]:
        """See the port; asks for metadata only."""
        found = {}
        async for item in self._items(resource, namespace, label_selector, _METADATA_ONLY):
            metadata = item["metadata"]
            identity = Identity(metadata["uid"], metadata["resourceVersion"])
            found[metadata.get("namespace", ""), metadata["name"]] = identity
        return found

    async def _items(
        self, resource: Resource, namespace: str | None, label_selector: str, accept: str, fields: str = ""
    ) -> AsyncIterator[Object]:
        token = ""
        while True:
            query = f"limit={PAGE}&labelSelector={quote(label_selector)}&continue={quote(token)}"
            query += f"&fieldSelector={quote(fields)}" if fields else ""
            page = await self._request("GET", f"{resource.path(namespace)}?{query}", accept=accept)
            for item in page.get("items") or ():
                yield item
            token = page.get("metadata", {}).get("continue") or ""
            if not token:
                return

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """See the port."""
        return await self._request("GET", resource.path(namespace, name))

    async def apply(self, manifest: Mapping[str, Any]) -> Object:
        """See the port."""
        return await self._apply(manifest, None)

    async def apply_status(self, manifest: Mapping[str, Any]) -> Object:
        """See the port."""
        return await self._apply(manifest, "status")

    async def patch_status(self, patch: Mapping[str, Any]) -> Object:
        """See the port."""
        metadata = patch["metadata"]
        path = resource_of(patch).path(metadata.get("namespace"), metadata["name"], "status")
        # An object of the same name with another uid is refused.
        body = {"metadata": {"uid": metadata["uid"]} if "uid" in metadata else {}, "status": patch["status"]}
        return await self._request("PATCH", f"{path}?fieldManager={FIELD_MANAGER}", body, _MERGE)

    async def create(self, resource: Resource, manifest: Mapping[str, Any]) -> Object:
        """See the port."""
        return await self._request("POST", resource.path(manifest["metadata"].get("namespace")), manifest)

    async def replace(self, resource: Resource, manifest: Mapping[str, Any]) -> Object:
        """See the port."""
        metadata = manifest["metadata"]
        return await self._request("PUT", resource.path(metadata.get("namespace"), metadata["name"]), manifest)

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        """See the port."""
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            await self._request("DELETE", resource.path(namespace, name), options)
        except NotFoundError:
            return

    async def serves(self, resource: Resource) -> bool:
        """See the port."""
        try:
            answer = await self._request("GET", resource.path().rsplit("/", 1)[0])
        except NotFoundError:
            return False
        return any(found.get("name") == resource.plural for found in answer.get("resources") or ())

    async def may_list(self, resource: Resource, *, namespace: str | None = None) -> None:
        """See the port; asks for the metadata of one object."""
        await self._request("GET", f"{resource.path(namespace)}?limit=1", accept=_METADATA_ONLY)

    async def may(self, verb: str, resource: Resource, subresource: str = "", *, namespace: str | None = None) -> bool:
        """See the port; one SelfSubjectAccessReview."""
        attributes = {"verb": verb, "group": resource.group, "resource": resource.plural}
        attributes |= {"namespace": namespace or "", "subresource": subresource}
        review = {
            "apiVersion": REVIEW.api_version,
            "kind": REVIEW.kind,
            "spec": {"resourceAttributes": attributes},
        }
        answer = await self._request("POST", REVIEW.path(), review)
        return bool((answer.get("status") or {}).get("allowed"))

    async def pod_page(self, namespace: str, pod: str, port: int, path: str) -> str:
        """Return the text of a page that a pod serves, through the API server's proxy (``get`` of ``pods/proxy``).

        Args:
            namespace: Of the pod.
            pod: Its name.
            port: Where it listens, plain HTTP.
            path: Without a leading slash.

        Raises:
            ClusterError: the API server refuses, the pod does not answer, or the page is no UTF-8 text.
        """
        what = f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/{path}"
        raw = await self._send("GET", what, accept="text/plain")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise TransientError(f"GET {what}: the answer is not UTF-8 text") from error

    async def _apply(self, manifest: Mapping[str, Any], subresource: str | None) -> Object:
        metadata = manifest["metadata"]
        path = resource_of(manifest).path(metadata.get("namespace"), metadata["name"], subresource)
        return await self._request("PATCH", f"{path}?fieldManager={FIELD_MANAGER}&force=true", manifest, _APPLY)

    async def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content_type: str = _JSON,
        accept: str = _JSON,
    ) -> Object:
        what = f"{method} {path.split('?', 1)[0]}"
        return object_of(what, await self._send(method, path, body, content_type, accept))

    async def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content_type: str = _JSON,
        accept: str = _JSON,
    ) -> bytes:
        used = self._api
        self._under_way[used] += 1
        try:
            return await self._send_by(used, method, path, body, content_type, accept)
        except (UnauthorizedError, UntrustedError):
            # The server carried out nothing, so a write may be sent again.
            if not await self._renewed(used):
                raise
        finally:
            self._under_way[used] -= 1
            if used is not self._api and not self._under_way[used]:
                del self._under_way[used]
                await used.close()
        return await self._send_by(self._api, method, path, body, content_type, accept)

    async def _renewed(self, used: ApiClient) -> bool:
        """Return whether the credentials differ from those of ``used``; reads them again if no other request has."""
        async with self._renewal:
            if self._api is not used:
                return True
            if self._read_again is None:
                return False
            try:
                configuration = await self._read_again()
            except UnusableConfigError as error:
                log.warning("credentials cannot be read again: %s", error)
                return False
            if _digest(configuration) == self._credentials:
                return False
            self._use(configuration)
            log.info("using the new credentials of the API server")
            self.on_renewal()
        return True

    async def _send_by(
        self, api: ApiClient, method: str, path: str, body: Mapping[str, Any] | None, content_type: str, accept: str
    ) -> bytes:
        headers: dict[str, str] = {"Accept": accept, "Content-Type": content_type}
        queries: list[tuple[str, str]] = []
        what = f"{method} {path.split('?', 1)[0]}"
        loop = asyncio.get_running_loop()
        # A lease that is renewed late is lost; API servers have a separate queue for leases.
        if f"/{LEASE.plural}/" not in path and (pause := self._busy_until - loop.time()) > 0:
            await self.sleep(pause)
        try:
            await api.update_params_for_auth(headers, queries, ["BearerToken"], path, method, body)
            response = await api.call_api(
                method, self._host + path, header_params=headers, body=body, _request_timeout=REQUEST_SECONDS
            )
            raw = await response.read()
        except aiohttp.ClientSSLError as error:
            raise UntrustedError(f"{what}: {failure_text(error)}") from error
        except (TimeoutError, aiohttp.ClientError, OSError, kube_config.ConfigException) as error:
            # The last known token: the kubelet is writing a new one at this moment.
            raise TransientError(f"{what}: {failure_text(error)}") from error
        if response.status < 300:
            return bytes(raw)
        failure = error_for(response.status, f"{what}: {response.status} {message_of(raw)}", response.getheaders())
        if isinstance(failure, BusyError):
            self._busy_until = max(self._busy_until, loop.time() + failure.retry_after_seconds)
        raise failure


def _digest(configuration: Configuration) -> str:
    """Return a digest of the credentials: the address, the token, and the content of the named files."""
    digest = hashlib.sha256(repr((configuration.host, sorted(configuration.api_key.items()))).encode())
    for name in (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file):
        try:
            digest.update(Path(name).read_bytes() if name else b"-")
        except OSError:
            digest.update(b"unreadable")
    return digest.hexdigest()


def _nobody() -> None:
    pass
