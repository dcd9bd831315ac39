"""Clients for the API server that a kubeconfig or a pod's service account names."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import yaml
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import Configuration

from energylens.cluster.client import KubeClient
from energylens.cluster.kubeconfig import UnusableConfigError, check_kubeconfig, told_failures


async def connect(kubeconfig: Path | None) -> KubeClient:
    """Return a client for a kubeconfig file, or for the pod's service account when there is none.

    Raises:
        UnusableConfigError: neither is usable.
    """
    return KubeClient(await _configuration(kubeconfig), partial(_configuration, kubeconfig))


async def _configuration(kubeconfig: Path | None) -> Configuration:
    configuration = Configuration()
    try:
        if kubeconfig is None:
            kube_config.load_incluster_config(client_configuration=configuration)
        else:
            check_kubeconfig(kubeconfig)
            await kube_config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
    except TypeError as error:
        # What the client makes of an empty file, or of a list where a mapping is due.
        raise UnusableConfigError(f"--kubeconfig={kubeconfig}: it is not a kubeconfig") from error
    except (kube_config.ConfigException, OSError, ValueError, yaml.YAMLError) as error:
        hint = "no pod's service account, and no --kubeconfig" if kubeconfig is None else f"--kubeconfig={kubeconfig}"
        raise UnusableConfigError(f"{hint}: {' '.join(str(error).split())}") from error
    return configuration


async def connect_as_user(kubeconfig: Path | None, context: str | None = None) -> tuple[KubeClient, str]:
    """Return a client that connects as kubectl does, and the namespace of the context ("default" if it has none).

    Args:
        kubeconfig: The file; None for the files of $KUBECONFIG, else ~/.kube/config.
        context: A context of it; None for the current one.

    Raises:
        UnusableConfigError: there is no such file or context, or it is not usable.
    """
    configuration = Configuration()
    where = "the kubeconfig ($KUBECONFIG, else ~/.kube/config)" if kubeconfig is None else f"--kubeconfig={kubeconfig}"
    check_kubeconfig(kubeconfig, context)
    try:
        with told_failures() as failures:
            loader = await kube_config.load_kube_config(
                config_file=None if kubeconfig is None else str(kubeconfig),
                context=context,
                client_configuration=configuration,
                persist_config=False,
            )
        chosen = loader.current_context["context"]
    except TypeError as error:
        raise UnusableConfigError(f"{where}: it is not a kubeconfig") from error
    except (kube_config.ConfigException, OSError, ValueError, yaml.YAMLError) as error:
        raise UnusableConfigError(f"{where}: {' '.join(str(error).split())}") from error
    if failures:
        raise UnusableConfigError(f"{where}: user {chosen.get('user')!r} cannot log in: {failures[-1]}")
    return KubeClient(configuration), str(chosen.get("namespace") or "default")
