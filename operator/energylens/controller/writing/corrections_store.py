"""Keeps the pooled corrections in a ConfigMap of the operator's own namespace."""

from __future__ import annotations

import logging
from typing import Any

from energylens.cluster.errors import NotFoundError
from energylens.cluster.port import ClusterPort
from energylens.cluster.resources import CONFIG_MAP
from energylens.decide.learned.corrections import CONFIG_MAP_NAME, DATA_KEY, CorrectionsError, Pool

log = logging.getLogger("energylens")


async def load_pool(cluster: ClusterPort, namespace: str, pool: Pool) -> None:
    """Load the corrections of an earlier operator; unreadable ones are logged and learned again.

    Raises:
        ClusterError: the ConfigMap cannot be read.
    """
    try:
        found = await cluster.get(CONFIG_MAP, namespace, CONFIG_MAP_NAME)
        pool.stored = True
        pool.load((found.get("data") or {}).get(DATA_KEY, ""))
    except NotFoundError:
        return
    except CorrectionsError as error:
        log.error("ConfigMap %s/%s, key %s: %s; learning again", namespace, CONFIG_MAP_NAME, DATA_KEY, error)


async def store_pool(cluster: ClusterPort, namespace: str, pool: Pool) -> None:
    """Store the corrections if they changed since the last time.

    Where the ConfigMap was deleted meanwhile, everything is forgotten: that is how a user asks for it.

    Raises:
        ClusterError: the ConfigMap cannot be read or written.
    """
    if not pool.changed:
        return
    if pool.stored:
        try:
            await cluster.get(CONFIG_MAP, namespace, CONFIG_MAP_NAME)
        except NotFoundError:
            log.warning("ConfigMap %s/%s was deleted: learned corrections are forgotten", namespace, CONFIG_MAP_NAME)
            pool.forget()
            return
    pool.changed = False
    try:
        await cluster.apply(_manifest(namespace, pool.dump()))
    except BaseException:
        pool.changed = True
        raise
    pool.stored = True


def _manifest(namespace: str, text: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": "energylens", "app.kubernetes.io/component": "corrections"}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CONFIG_MAP_NAME, "namespace": namespace, "labels": labels},
        "data": {DATA_KEY: text},
    }
