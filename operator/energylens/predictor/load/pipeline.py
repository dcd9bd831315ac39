"""How the stages of a pipeline share the running sequences, and what waiting for each other costs.

Engines keep as many micro-batches in flight as there are stages (vLLM's ``max_concurrent_batches``, SGLang's event loop
of a pipeline): each passes all stages in turn, and while one is on the first stage others are on the ones behind. Two
things leave stages empty:

* with fewer sequences than stages there are fewer micro-batches than stages;
* micro-batches keep their order, so that one with a prompt holds up all: a round takes as long as its slowest
  micro-batch on every stage (the bubble of GPipe, Huang et al., NeurIPS 2019, with unequal micro-batches).

No run that coefficients were fitted to had stages. What a waiting stage draws is an assumption: it polls for the next
micro-batch in a receive, like a rank that waits in a collective.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from energylens.predictor.types import BoolArray, FloatArray, Layouts


@dataclass(frozen=True)
class Pipeline:
    """The micro-batches of each data-parallel rank; arrays of shape (n,)."""

    in_flight: FloatArray
    """Micro-batches at the same time: 1 to the number of stages."""
    stages: FloatArray

    @property
    def filled(self) -> FloatArray:
        """Stages that have a micro-batch over all stages, shape (n,)."""
        return self.in_flight / self.stages

    @property
    def staged(self) -> BoolArray:
        """Which candidates have more than one stage, shape (n,)."""
        return np.asarray(self.stages > 1.0)

    def holding(self, prompts: FloatArray) -> FloatArray:
        """Return how many micro-batches have prompts of a round in which some has, shape (n,): 1 at least.

        Args:
            prompts: Of all micro-batches of the round, shape (n,); each falls on any of them.
        """
        spread = self.in_flight * -np.expm1(-prompts / self.in_flight)
        return np.where(self.in_flight > 1.0, np.maximum(spread, 1.0), 1.0)


def pipeline_of(layouts: Layouts, sequences: FloatArray) -> Pipeline:
    """Return the micro-batches of candidates with some running sequences each, both of n."""
    stages = layouts.pipeline_parallel.astype(np.float64)
    return Pipeline(np.clip(sequences / layouts.data_parallel, 1.0, stages), stages)
