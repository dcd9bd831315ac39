"""The layouts of measured runs."""

from __future__ import annotations

import numpy as np

from energylens.predictor.types import IntArray, Layouts


def layouts_of(tensor: IntArray, expert: IntArray, data: IntArray, sequences: IntArray) -> Layouts:
    """Return the layouts of runs by their degrees and ``sequences``, the batch of a replica; each of shape (n,).

    No table of runs has pipelines or power caps.
    """
    batch = np.maximum(1, -(-sequences // data))
    return Layouts(tensor, np.ones_like(tensor), expert, data, batch, np.full(tensor.shape, np.nan))
