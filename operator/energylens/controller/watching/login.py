"""How kopf connects to the API server: as its own logins do, with TLS verified as by every other client of ours."""

from __future__ import annotations

import dataclasses
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import kopf

from energylens.cluster.proxies import environment_proxy
from energylens.controller.watching.heartbeat import Heartbeats
from energylens.tls import accept_missing_key_identifiers

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Credentials(kopf.ConnectionInfo):
    """How to connect to an API server whose certificates may lack key identifiers."""

    def as_ssl_context(self) -> ssl.SSLContext:
        """Return kopf's TLS context without the strictness that Python 3.13 added."""
        return accept_missing_key_identifiers(super().as_ssl_context())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Connection(kopf.AiohttpSession):
    """kopf's connection, whose watches are noted.

    Two of equal credentials are equal: kopf does not try again what the API server has refused.
    """

    aiohttp_session: aiohttp.ClientSession = dataclasses.field(compare=False, repr=False)
    credentials: Credentials


async def log_in(
    kubeconfig: Path | None, heartbeats: Heartbeats, environ: Mapping[str, str] = os.environ, **kwargs: Any
) -> Connection | None:
    """Return kopf's connection: by a kubeconfig that kopf finds in $KUBECONFIG, else by the pod's service account.

    Args:
        kubeconfig: The file that was named on the command line; None in a pod.
        heartbeats: Hears of each watch.
        environ: Where the kubelet says which address the API server has. kopf itself asks for
            ``kubernetes.default.svc``, which needs a cluster DNS that answers.
        kwargs: What kopf passes to a login handler.
    """
    login = kopf.login_with_service_account if kubeconfig is None else kopf.login_with_kubeconfig
    found = login(**kwargs)
    if found is None:
        return None
    values = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    if kubeconfig is None:
        values["server"] = in_cluster_server(environ) or found.server
    credentials = Credentials(**values)
    session = heartbeats.session(
        connector=aiohttp.TCPConnector(limit=0, ssl=credentials.as_ssl_context()),
        headers=credentials.as_http_headers(),
        proxy=credentials.proxy_url or environment_proxy(credentials.server),
        trust_env=credentials.trust_env,
    )
    return Connection(
        server=credentials.server,
        default_namespace=credentials.default_namespace,
        aiohttp_session=session,
        credentials=credentials,
    )


def in_cluster_server(environ: Mapping[str, str]) -> str | None:
    """Return the URL of the API server by a pod's environment; None outside of a pod."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        return None
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
