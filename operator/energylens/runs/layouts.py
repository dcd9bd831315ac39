"""The layouts of measured runs."""

from __future__ import annotations

import numpy as np

from energylens.predictor.types import IntArray, Layouts


def layouts_of(
    tensor: IntArray,
    expert: IntArray,
    data: IntArray,
    sequences: IntArray,
    step_tokens: IntArray,
    graph_tokens: IntArray,
) -> Layouts:
    """Return the layouts of runs.

    No table of runs has pipelines or power caps.

    Args:
        tensor: Tensor-parallel degree, shape (n,).
        expert: Expert-parallel degree, shape (n,).
        data: Data-parallel ranks, shape (n,).
        sequences: The batch of a replica, shape (n,).
        step_tokens: Tokens of the largest step of a rank, 0 for the engine's default, shape (n,).
        graph_tokens: Tokens of the largest CUDA graph of a rank, 0 for the engine's default, shape (n,).
    """
    batch = np.maximum(1, -(-sequences // data))
    degrees, uncapped = (tensor, np.ones_like(tensor), expert, data), np.full(tensor.shape, np.nan)
    return Layouts(*degrees, batch, uncapped, step_tokens, graph_tokens=graph_tokens)
