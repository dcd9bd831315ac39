"""Options that several planning commands share, and the inputs that they name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from energylens.api.llmdeployment import LLMDeployment
from energylens.cli.errors import InputError
from energylens.cli.inputs.decorated import with_options
from energylens.cli.inputs.files import Asked, read_asked, with_model_config
from energylens.cli.inputs.live import ClusterAccess, cluster_options, namespace_of
from energylens.cli.inputs.world import join, world_of_cluster, world_of_file
from energylens.decide.preview import World
from energylens.records import dataclass

_Command = TypeVar("_Command", bound=Callable[..., Any])

INVENTORY_HELP = (
    "The cluster: the output of `kubectl get nodes,pods -A -o json` (nodes alone work, too; LLMDeployments and "
    "budgets in it count), or a YAML list of pools: {nodes: [{product: H100, gpus: 8, count: 2}]}."
)
OUTPUT = click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True
)
FILES = click.option(
    "-f",
    "--filename",
    "files",
    type=click.Path(path_type=Path),
    required=True,
    multiple=True,
    metavar="FILE",
    help="YAML or JSON with one or more LLMDeployments, a folder of such files, or - for stdin; may be repeated. "
    "Budgets in the files count, too.",
)


WHAT_IF = click.option(
    "--what-if",
    "what_if",
    metavar="FORMAT[,...]",
    help="Also estimate the saving of weights in another format, by the usual recipe of such releases: None (16 bits), "
    "FP8, INT8, MXFP4, NVFP4, INT4, or all. The operator never follows such a plan.",
)


@dataclass(frozen=True)
class Source:
    """Where the cluster is described."""

    inventory: Path | None
    cluster: bool
    access: ClusterAccess
    model_config: Path | None

    @property
    def cluster_text(self) -> str:
        """Source of the cluster, for the foot of a page."""
        if self.inventory is not None:
            return f"inventory {self.inventory.name}"
        return f"the cluster of context {self.access.context}" if self.access.context else "the live cluster"

    def read(self, files: tuple[Path, ...]) -> tuple[list[LLMDeployment], World]:
        """Return the deployments of files, and the cluster that they are planned for.

        Raises:
            InputError: A file or the cluster cannot be read, or two clusters are named.
        """
        if self.inventory is not None:
            if self.cluster or self.access != ClusterAccess():
                raise InputError("--inventory describes the cluster; --cluster and its options read another: give one")
            return join(self._asked(files, None), world_of_file(self.inventory))
        asked = self._asked(files, namespace_of(self.access))
        return join(asked, world_of_cluster(self.access, asked))

    def _asked(self, files: tuple[Path, ...], namespace: str | None) -> Asked:
        asked = read_asked(files, namespace)
        return asked if self.model_config is None else with_model_config(asked, self.model_config)


def source_options(command: _Command) -> Callable[..., Any]:
    """Add --inventory and the options of :func:`live_options`; the command takes them as ``source``."""

    @wraps(command)
    def wrapped(*, inventory: Path | None, source: Source, **rest: Any) -> Any:
        return command(source=replace(source, inventory=inventory), **rest)

    inventory = click.option("--inventory", type=click.Path(path_type=Path), metavar="FILE", help=INVENTORY_HELP)
    return inventory(live_options(wrapped))


def live_options(command: _Command) -> Callable[..., Any]:
    """Add --cluster, the options of a live cluster and --model-config; the command takes them as ``source``."""

    @wraps(command)
    def wrapped(
        *,
        cluster: bool,
        kubeconfig: Path | None,
        context: str | None,
        namespace: str | None,
        operator_namespace: str | None,
        model_config: Path | None,
        **rest: Any,
    ) -> Any:
        access = ClusterAccess(kubeconfig, context, namespace, operator_namespace=operator_namespace)
        return command(source=Source(None, cluster, access, model_config), **rest)

    options = (
        click.option("--cluster", is_flag=True, help="Use the live cluster of the kubeconfig (the default)."),
        cluster_options,
        click.option(
            "-n",
            "--namespace",
            metavar="NAME",
            help="Namespace of objects in FILE that name none. Default: that of the context.",
        ),
        click.option(
            "--operator-namespace",
            metavar="NAME",
            help="Namespace in which the operator keeps learned corrections. Default: that of its Deployment.",
        ),
        click.option(
            "--model-config",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="config.json of the model, for models that are not in the catalogue.",
        ),
    )
    return with_options(wrapped, options)
