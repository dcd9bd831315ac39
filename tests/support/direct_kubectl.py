"""kubectl's get, list and apply as requests of this process: a program for each takes twenty times the processor time.

Tests ask many times a second until the cluster is in a state. All other commands, and options that are not known here,
are run by the program.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import yaml
from tests.support.api_client import APPLY, ApiClient, ApiError

from energylens.cluster.resources import Resource
from energylens_dev.devcluster import Kubectl, KubectlError, RunningCluster

Object = dict[str, Any]
Answer = TypeVar("Answer")
_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class Kinds:
    """The kinds that an API server serves, asked for again when one is not among them."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._known: list[tuple[Resource, frozenset[str]]] = []

    def named(self, name: str) -> Resource:
        """Return the kind of a name that kubectl takes: plural, singular or short, alone or with ``.group``.

        Raises:
            LookupError: the server serves no such kind.
        """
        short, _, group = name.lower().partition(".")
        return self._first(lambda resource, names: short in names and group in ("", resource.group), name)

    def of(self, body: Mapping[str, Any]) -> Resource:
        """Return the kind of an object.

        Raises:
            LookupError: the server serves no such kind.
        """
        wanted = body["apiVersion"], body["kind"]
        return self._first(lambda resource, _: (resource.api_version, resource.kind) == wanted, " ".join(wanted))

    def forget(self) -> None:
        """Ask the server again the next time."""
        self._known = []

    def _first(self, wanted: Callable[[Resource, frozenset[str]], bool], name: str) -> Resource:
        for fresh in (False, True):
            if fresh or not self._known:
                self._known = list(self._served())
            for resource, names in self._known:
                if wanted(resource, names):
                    return resource
        raise LookupError(f"the server doesn't have a resource type {name!r}")

    def _served(self) -> Iterator[tuple[Resource, frozenset[str]]]:
        """Yield every kind with its names, the one that a name stands for first."""
        for path in ("/api", "/apis"):
            for group in self._client.request("GET", path, accept=_DISCOVERY)["items"]:
                for version in group["versions"]:
                    for found in version["resources"]:
                        # The kind of some is that of another group, such as the Scale of a subresource.
                        kind, namespaced = found["responseKind"]["kind"], found["scope"] == "Namespaced"
                        resource = Resource(
                            group["metadata"].get("name", ""), version["version"], kind, found["resource"], namespaced
                        )
                        singular = found.get("singularResource") or kind.lower()
                        yield resource, frozenset({resource.plural, singular, *found.get("shortNames", ())})


class DirectKubectl(Kubectl):
    """kubectl that answers `get`, `list` and `apply` by requests over kept connections."""

    def __init__(self, program: Kubectl, client: ApiClient, kinds: Kinds) -> None:
        """Take the program for all else, and the requests with the credentials of its kubeconfig."""
        super().__init__(program.program, program.kubeconfig, program.cache, program.namespace)
        self._client = client
        self._kinds = kinds

    def within(self, namespace: str) -> DirectKubectl:
        return DirectKubectl(super().within(namespace), self._client, self._kinds)

    def get(self, kind: str, name: str) -> Object | None:
        def ask() -> Object | None:
            try:
                return _shown(self._client.request("GET", self._path(self._kinds.named(kind), name)))
            except ApiError as error:
                if error.status == 404 and f'"{name}" not found' in error.message:
                    return None
                raise

        return self._asked(ask, "get", kind, name)

    def list(self, kind: str, *arguments: str) -> list[Object]:
        options = _options(arguments)
        if options is None:
            return super().list(kind, *arguments)
        everywhere, query = options

        def ask() -> list[Object]:
            found = []
            for one in kind.split(","):
                resource = self._kinds.named(one)
                path = resource.path() if everywhere else self._path(resource)
                head = {"apiVersion": resource.api_version, "kind": resource.kind}
                found += [_shown(head | item) for item in self._client.request("GET", path + query)["items"]]
            return found

        return self._asked(ask, "get", kind, *arguments)

    def apply(self, manifests: str | Mapping[str, Any] | Sequence[Mapping[str, Any]], *arguments: str) -> str:
        if arguments:
            return super().apply(manifests, *arguments)
        if isinstance(manifests, str):
            bodies = [body for body in yaml.safe_load_all(manifests) if body]
        else:
            bodies = [manifests] if isinstance(manifests, Mapping) else [*manifests]

        def ask(body: Mapping[str, Any]) -> None:
            resource, name = self._kinds.of(body), body["metadata"]["name"]
            path = self._path(resource, name, body["metadata"].get("namespace"))
            query = urlencode({"fieldManager": "kubectl", "force": "true", "fieldValidation": "Strict"})
            self._client.request("PATCH", f"{path}?{query}", body, APPLY)

        names = [f"{body['kind']}/{body['metadata']['name']}" for body in bodies]
        for body, name in zip(bodies, names, strict=True):
            self._asked(partial(ask, body), "apply", name)
        return "".join(f"{name} serverside-applied\n" for name in names)

    def delete(self, kind: str, name: str) -> None:
        """Delete an object without waiting until it is gone; nothing happens where there is none."""
        path = self._path(self._kinds.named(kind), name)
        try:
            self._client.request("DELETE", path, {"propagationPolicy": "Background"})
        except ApiError as error:
            if error.status != 404:
                raise KubectlError(("delete", kind, name), error.message) from error

    def _path(self, resource: Resource, name: str | None = None, namespace: str | None = None) -> str:
        return resource.path(namespace or self.namespace or "default", name)

    def _asked(self, ask: Callable[[], Answer], *arguments: str) -> Answer:
        """Return the answer; ask once more where the path of a kind has changed."""
        try:
            try:
                return ask()
            except ApiError as error:
                if error.status != 404:
                    raise
                self._kinds.forget()
                return ask()
        except (ApiError, LookupError, OSError, http.client.HTTPException) as error:
            message = error.message if isinstance(error, ApiError) else str(error)
            raise KubectlError(arguments, f"Error from server: {message}") from error


def _shown(body: Object) -> Object:
    """Return an object without the part that kubectl does not show unless told to."""
    body["metadata"].pop("managedFields", None)
    return body


def _options(arguments: Sequence[str]) -> tuple[bool, str] | None:
    """Return whether all namespaces are asked for, and the query; None where an argument is not known here."""
    everywhere, query, left = False, {}, [*arguments]
    while left:
        match left:
            case ["-A" | "--all-namespaces", *rest]:
                everywhere, left = True, rest
            case ["-l" | "--selector", selector, *rest]:
                query["labelSelector"], left = selector, rest
            case _:
                return None
    return everywhere, f"?{urlencode(query, quote_via=quote)}" if query else ""


@contextmanager
def direct_kubectl(cluster: RunningCluster) -> Iterator[DirectKubectl]:
    """Yield kubectl as the administrator of a cluster; its connections are closed at the end."""
    client = ApiClient(cluster.kubeconfig)
    try:
        yield DirectKubectl(cluster.client(), client, Kinds(client))
    finally:
        client.close()
