"""Reading a live cluster as the user of a kubeconfig, for the commands of the kubectl plugin.

The Kubernetes client is imported when the first object is read: offline commands must not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from energylens.api.base import ObjectMeta
from energylens.api.parse import InvalidResourceError
from energylens.cli.errors import InputError
from energylens.cli.inputs.decorated import with_options
from energylens.records import dataclass

if TYPE_CHECKING:
    from energylens.cluster.client import KubeClient
    from energylens.cluster.resources import Resource

Object = dict[str, Any]


class _HasMetadata(Protocol):
    @property
    def metadata(self) -> ObjectMeta: ...


Named = TypeVar("Named", bound=_HasMetadata)


@dataclass(frozen=True)
class ClusterAccess:
    """A cluster, and the namespaces to read."""

    kubeconfig: Path | None = None
    """None for kubectl's own search."""
    context: str | None = None
    namespace: str | None = None
    """None for the namespace of the context."""
    all_namespaces: bool = False
    operator_namespace: str | None = None
    """Namespace of the operator; None for the namespace of its Deployment."""


@dataclass(frozen=True)
class LiveObjects:
    """Objects of a live cluster, by kind and in the server's order (namespace, then name)."""

    namespace: str
    """The requested namespace, by default that of the kubeconfig's context."""
    objects: dict[str, list[Object]]


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --kubeconfig and --context to a command."""
    options = (
        click.option(
            "--kubeconfig",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Kubeconfig file. Default: the files of $KUBECONFIG, else ~/.kube/config.",
        ),
        click.option("--context", metavar="NAME", help="Context of the kubeconfig. Default: the current one."),
    )
    return with_options(command, options)


def namespace_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of :func:`cluster_options`, --namespace and --all-namespaces to a command."""
    options = (
        click.option("-n", "--namespace", metavar="NAME", help="Namespace to show. Default: that of the context."),
        click.option("-A", "--all-namespaces", is_flag=True, help="Show all namespaces."),
    )
    return cluster_options(with_options(command, options))


def namespace_of(access: ClusterAccess) -> str:
    """Return the requested namespace, by default that of the kubeconfig's context.

    Raises:
        InputError: The kubeconfig is not usable.
    """
    return access.namespace or read_cluster(access).namespace


def read_cluster(
    access: ClusterAccess,
    namespaced: tuple[Resource, ...] = (),
    everywhere: tuple[Resource, ...] = (),
    optional: tuple[Resource, ...] = (),
    named: Sequence[tuple[Resource, str, str]] = (),
    if_allowed: tuple[Resource, ...] = (),
) -> LiveObjects:
    """Return the objects of some kinds.

    Args:
        access: The cluster and the namespace.
        namespaced: Kinds that are read in the requested namespace (everywhere with ``all_namespaces``).
        everywhere: Kinds that are read in every namespace, and cluster-scoped ones.
        optional: Kinds of these that the cluster may not know; unknown kinds are absent from the answer.
        if_allowed: Kinds that the user may not be allowed to read; they are then absent from the answer.
        named: Single objects by kind, namespace and name; those that do not exist are left out.

    Raises:
        InputError: The kubeconfig is not usable, or the API server cannot be reached or refuses.
    """
    import asyncio

    from energylens.cluster.connecting import connect_as_user
    from energylens.cluster.errors import ClusterError, UnauthorizedError
    from energylens.cluster.kubeconfig import NoConfigError, UnusableConfigError

    async def read() -> LiveObjects:
        client, own = await connect_as_user(access.kubeconfig, access.context)
        namespace = access.namespace or own
        objects: dict[str, list[Object]] = {}
        async with client:
            for resource in (*namespaced, *everywhere):
                limited = resource in namespaced and not access.all_namespaces
                found = await _listed(
                    client,
                    resource,
                    namespace if limited else None,
                    may_lack=resource in optional or resource in if_allowed,
                    may_refuse=resource in if_allowed,
                )
                if found is not None:
                    objects[resource.kind] = found
            for resource, where, name in named:
                objects.setdefault(resource.kind, [])
                one = await _named(client, resource, where, name, may_refuse=resource in if_allowed)
                objects[resource.kind] += one
        return LiveObjects(namespace, objects)

    try:
        return asyncio.run(read())
    except UnauthorizedError as error:
        raise InputError(
            f"{error}: the API server does not accept your credentials; they may have expired: log in again, or name "
            "another context by --context"
        ) from error
    except NoConfigError as error:
        raise InputError(f"{error}{_other_source()}") from error
    except (UnusableConfigError, ClusterError) as error:
        raise InputError(str(error)) from error


def _other_source() -> str:
    """Return how the running command is used without a cluster; "" if it needs one."""
    running = click.get_current_context(silent=True)
    if running is None or all(parameter.name != "inventory" for parameter in running.command.params):
        return ""
    return ", or describe a cluster by --inventory FILE"


async def _listed(
    client: KubeClient, resource: Resource, namespace: str | None, *, may_lack: bool, may_refuse: bool
) -> list[Object] | None:
    """Return the objects of a kind; None if an optional kind is unknown or the cluster refuses to list it."""
    from energylens.cluster.errors import ForbiddenError, NotFoundError

    try:
        return await client.list_objects(resource, namespace=namespace)
    except ForbiddenError:
        if may_refuse:
            return None
        raise
    except NotFoundError as error:
        if may_lack:
            return None
        raise InputError(
            f"the cluster does not serve {resource.plural}.{resource.group} in version {resource.version}: "
            "is EnergyLens installed? Install or upgrade its definitions by the Helm chart or by "
            "`energylens crds`"
        ) from error


async def _named(
    client: KubeClient, resource: Resource, namespace: str, name: str, *, may_refuse: bool
) -> list[Object]:
    """Return the object with a name, or None."""
    from energylens.cluster.errors import ForbiddenError

    try:
        return await client.list_objects(resource, namespace=namespace, name=name)
    except ForbiddenError:
        if may_refuse:
            return []
        raise


def by_name(
    found: Sequence[Named], names: Sequence[str], access: ClusterAccess, namespace: str, kind: str
) -> list[Named]:
    """Return the objects of these names, or all of them without names.

    Args:
        found: What was read.
        names: The requested names.
        access: Where the objects were read.
        namespace: The namespace that was read, unless all were.
        kind: The kind, for the message.

    Raises:
        InputError: There is no object, or none with a requested name.
    """
    where = "the cluster" if access.all_namespaces else f"namespace {namespace}"
    known = [each.metadata.name for each in found]
    missing = [name for name in names if name not in known]
    if missing:
        raise InputError(f"NAME {missing[0]!r}: {where} has {', '.join(known) or f'no {kind}'}")
    if not known:
        raise InputError(f"{where} has no {kind}")
    return [each for each in found if not names or each.metadata.name in names]


def readable(bodies: Iterable[Mapping[str, Any]], parse: Callable[..., Named]) -> list[Named]:
    """Return objects of a cluster.

    One that only a newer version understands gives a warning and does not hide the rest.
    """
    found = []
    for body in bodies:
        try:
            found.append(parse(body, strict=False))
        except InvalidResourceError as error:
            name = "/".join(filter(None, (body["metadata"].get("namespace"), body["metadata"]["name"])))
            click.echo(f"Warning: {name} is left out: {error}", err=True)
    return found
