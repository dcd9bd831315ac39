"""How the stages of a pipeline share the running sequences, and the cost of waiting for each other.

Engines keep as many micro-batches in flight as there are stages (vLLM's ``max_concurrent_batches``, SGLang's event loop
of a pipeline). Each micro-batch passes all stages in turn; while one is on the first stage, others are on later stages.
Two effects leave stages idle:

* with fewer sequences than stages there are fewer micro-batches than stages;
* micro-batches keep their order, so that one with a prompt delays all: a round takes as long as its slowest
  micro-batch on every stage (the bubble of GPipe, Huang et al., NeurIPS 2019, with unequal micro-batches).

No run behind the coefficients had stages. The power of a waiting stage is an assumption: it polls for the next
micro-batch in a receive operation, like a rank that waits in a collective.
"""

from __future__ import annotations

import numpy as np

from energylens.predictor.types import BoolArray, FloatArray, Layouts
from energylens.records import dataclass


@dataclass(frozen=True)
class Pipeline:
    """The micro-batches of each data-parallel rank; arrays of shape (n,)."""

    in_flight: FloatArray
    """Micro-batches in flight: 1 to the number of stages."""
    stages: FloatArray

    @property
    def filled(self) -> FloatArray:
        """Share of stages that have a micro-batch, shape (n,)."""
        return self.in_flight / self.stages

    @property
    def staged(self) -> BoolArray:
        """Which candidates have more than one stage, shape (n,)."""
        return np.asarray(self.stages > 1.0)

    def holding(self, prompts: FloatArray) -> FloatArray:
        """Return how many micro-batches of a round with prompts have a prompt, shape (n,): at least 1.

        Args:
            prompts: Prompts in all micro-batches of the round, shape (n,), assigned at random.
        """
        spread = self.in_flight * -np.expm1(-prompts / self.in_flight)
        return np.where(self.in_flight > 1.0, np.maximum(spread, 1.0), 1.0)


def pipeline_of(layouts: Layouts, sequences: FloatArray) -> Pipeline:
    """Return the micro-batches of n candidates with the given running sequences."""
    stages = layouts.pipeline_parallel.astype(np.float64)
    return Pipeline(np.clip(sequences / layouts.data_parallel, 1.0, stages), stages)
