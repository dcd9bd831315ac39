"""The sources of a page: when it was made, and from which cluster and predictor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from energylens import __version__
from energylens.planner.types import ClusterSnapshot
from energylens.records import dataclass


def made_from(made: datetime, cluster: str, predictors: Iterable[str] = ()) -> str:
    """Return when, from what and by which version a page was made.

    Args:
        made: When.
        cluster: Where the cluster was read from.
        predictors: Versions of code and coefficients that made the figures.
    """
    return f"Made {made:%Y-%m-%d %H:%M} UTC by energylens {__version__}{_versions(predictors)}, from {cluster}."


def _versions(predictors: Iterable[str]) -> str:
    versions = ", ".join(sorted(set(predictors)))
    return f", predictor {versions}" if versions else ""


@dataclass(frozen=True)
class Provenance:
    """When, from which cluster and by which predictor."""

    made: datetime
    cluster: str
    """Source of the cluster: ``inventory pools.yaml``."""
    snapshot: ClusterSnapshot

    def text(self, predictors: Iterable[str]) -> str:
        """Return one line.

        Args:
            predictors: Versions of code and coefficients that made the figures.
        """
        gpus: Counter[str] = Counter()
        for node in self.snapshot.nodes:
            gpus[node.product] += node.allocatable
        nodes = len(self.snapshot.nodes)
        at_hand = ", ".join(f"{count} {product.removeprefix('NVIDIA-')}" for product, count in sorted(gpus.items()))
        return (
            f"{made_from(self.made, self.cluster, predictors).removesuffix('.')}: "
            f"{nodes} node{'' if nodes == 1 else 's'} with GPUs{f' ({at_hand})' if at_hand else ''}."
        )
