"""The command group: each subcommand's module is imported only when it is called, so that start-up stays fast."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from energylens import __version__
from energylens.cli.usage import one_line_usage_errors

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS: dict[str, tuple[str, str]] = {
    "calibrate": ("energylens.cli.commands.calibrate:calibrate", "Fit the predictor's coefficients to measured runs."),
    "accuracy": (
        "energylens.cli.commands.accuracy:accuracy",
        "Compare predictions with measured runs.",
    ),
    "measure": ("energylens.cli.commands.measure:measure", "Measure energy per token on a machine with GPUs, by NVML."),
    "drift": (
        "energylens.cli.commands.drift:drift",
        "Compare predicted with measured for all LLMDeployments of a cluster.",
    ),
    "completion": ("energylens.cli.completion:completion", "Print a shell's completion script."),
    "status": (
        "energylens.cli.commands.status:status",
        "Show the LLMDeployments of a cluster: plan, prediction, measurement.",
    ),
    "plan": ("energylens.cli.commands.plan:plan", "Plan LLMDeployments for a live cluster or one in a file."),
    "diff": ("energylens.cli.commands.diff:diff", "Compare the plans of two specs or of two clusters."),
    "fleet": ("energylens.cli.commands.fleet:fleet", "Plan many LLMDeployments together within shared watts and GPUs."),
    "explain": (
        "energylens.cli.commands.explain:explain",
        "Explain the plan, or why another plan was not chosen.",
    ),
    "audit": (
        "energylens.cli.commands.audit:audit",
        "Show which workloads serve LLMs now, their power, and the saving of a plan.",
    ),
    "budget": (
        "energylens.cli.commands.budget:budget",
        "Show what energy budgets have left, and draw their burn-down.",
    ),
    "grid": ("energylens.cli.commands.grid:grid", "Print a grid's carbon intensity by hour, from a service."),
    "ui": ("energylens.cli.commands.ui:ui", "Show deployments, plans, budgets, drift and an audit in a browser."),
    "power-caps": (
        "energylens.cli.commands.power_caps:power_caps",
        "Set GPU power limits of one node by its pods' annotation.",
    ),
    "operator": ("energylens.cli.commands.operator:operator", "Run the operator."),
    "predict": ("energylens.cli.commands.predict:predict", "Predict latency, power and energy of a table of runs."),
    "crds": ("energylens.cli.commands.crds:crds", "Write the CustomResourceDefinitions as YAML files."),
    "models": (
        "energylens.cli.commands.models:models",
        "Compare the parameters of config.json files with published counts.",
    ),
    "dev": ("energylens_dev.command:dev", "Run a real Kubernetes control plane with GPU nodes on this machine."),
}
"""Subcommand name -> (module:attribute of a click command, one-line help)."""


def is_installed(name: str) -> bool:
    """Return whether a subcommand's package is installed: the operator's image has no development tools."""
    package = COMMANDS[name][0].partition(".")[0]
    return package == __name__.partition(".")[0] or find_spec(package) is not None


class LazyGroup(click.Group):
    """A click group that imports a subcommand on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the subcommand names without importing any of them."""
        return sorted(filter(is_installed, COMMANDS))

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the options of the group; errors take one line."""
        with one_line_usage_errors():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Parse and run a subcommand; errors in its options take one line."""
        with one_line_usage_errors():
            return super().invoke(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one subcommand, or None when there is none of that name.

        Raises:
            click.UsageError: it is one of the development tools, and those are not installed.
        """
        if cmd_name not in COMMANDS:
            return None
        if not is_installed(cmd_name):
            raise click.UsageError(
                f"`energylens {cmd_name}` is one of the development tools, which are not installed: in a clone of the "
                "repository, `pip install tools/energylens_dev` installs them"
            )
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        if not gc.isenabled():
            # None of what was imported is ever garbage: collections need not look at it.
            gc.freeze()
            gc.enable()
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the subcommands with this prefix without importing them, so that completion is fast."""
        from click.shell_completion import CompletionItem

        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        own = click.Command.shell_complete(self, ctx, incomplete)
        return [*(CompletionItem(name, help=COMMANDS[name][1]) for name in names), *own]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command list from the table, importing nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="energylens")
@click.option(
    "--coefficients",
    "coefficients_file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="ENERGYLENS_COEFFICIENTS",
    show_envvar=True,
    help="Predict with this file of `calibrate fit` instead of the shipped coefficients.",
)
def cli(coefficients_file: Path | None) -> None:
    """Serve LLMs with the least energy that meets their latency objectives."""
    if coefficients_file is not None:
        from energylens.data.predictor import use_coefficients
        from energylens.predictor.fitted.coefficients import CoefficientsError

        try:
            use_coefficients(coefficients_file)
        except CoefficientsError as error:
            raise click.UsageError(f"--coefficients: {error}") from error


def main() -> None:
    """Entry point of the energylens and kubectl-energylens commands."""
    # NumPy reads this when it is loaded. Its matrices are small, so threads would only add synchronisation.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # The models of the API need no plugin; looking for plugins reads the metadata of every installed package.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # Imports create many objects and no garbage. Collections begin when the command has been imported.
    gc.disable()
    gc.set_threshold(50_000)
    name = "kubectl energylens" if sys.argv[0].endswith("kubectl-energylens") else "energylens"
    # A service's log keeps the traceback of a defect, and a service prints nothing that could be lost.
    is_service = sys.argv[1:2] in (["operator"], ["power-caps"])
    if is_service:
        cli(prog_name=name)
    else:
        from energylens.cli.ending import run_to_end

        code = run_to_end(lambda: cli(prog_name=name))
        # The interpreter would look for garbage among all objects before it ends.
        gc.freeze()
        sys.exit(code)
