"""Which link the messages of a group of GPUs take, and what the slower one costs.

NVLink joins the GPUs of an island: all of an HGX board, the two or four cards of a bridge, the 72 of an NVL72 rack.
Messages between islands take the host link, which is PCIe. Between nodes they go on over a network. Where its speed is
known, it is shared by the GPUs of a node, and PCIe by none where NVLink joins them; where it is not, the figures of the
PCIe are taken that they pass on their way.

Kubernetes places no group of GPUs on an island: the device plugin prefers GPUs with the better links (``gpuallocator``
of NVIDIA/go-gpuallocator, best-effort policy), and the kubelet may not follow.
"""

from __future__ import annotations

import numpy as np

from energylens.predictor.model.einsum import Collective
from energylens.predictor.types import FloatArray, GpuSpec

LARGEST_BOARD = 16
"""GPUs that NVLink joins in one node at most; a larger island is a rack, whose nodes it joins, too."""


def nvlink_island(gpu: GpuSpec) -> int:
    """Return the GPUs of a product that NVLink joins; 1 without NVLink."""
    if not gpu.nvlink_bandwidth:
        return 1
    island = gpu.gpus_per_nvlink_island
    return island if island > LARGEST_BOARD else min(island, gpu.max_gpus_per_node)


def node_size(gpu: GpuSpec) -> int:
    """Return the GPUs beyond which messages take a network: those of a node, or of a rack that NVLink joins."""
    return max(gpu.max_gpus_per_node, nvlink_island(gpu))


def host_share(kind: Collective, group: FloatArray, island: int) -> FloatArray:
    """Return the share of each GPU's bytes that a collective sends over the host link, shape of ``group``.

    A ring passes all that it moves over each of its hops (Thakur et al., IJHPCA 2005), so that one hop between islands
    sets its pace. All-to-all sends an equal part to every other GPU, those of the own island over NVLink.

    Args:
        kind: The collective.
        group: GPUs that take part, at least 1.
        island: GPUs that NVLink joins.
    """
    if kind is Collective.ALL_TO_ALL:
        return np.asarray(np.maximum(group - island, 0.0) / np.maximum(group - 1.0, 1.0))
    return np.asarray(group > island, dtype=np.float64)


def stage_share(tp: FloatArray, pp: FloatArray, island: int) -> FloatArray:
    """Return the share of a pipeline's stage borders that lie between islands, shape (n,).

    Engines number GPUs with tensor parallelism innermost, so that stages follow one another within an island as far as
    they fit.

    Args:
        tp: GPUs of a stage, shape (n,).
        pp: Stages, shape (n,).
        island: GPUs that NVLink joins.
    """
    borders = np.maximum(pp - 1.0, 1.0)
    return np.asarray(np.minimum(np.ceil(tp * pp / island) - 1.0, borders) / borders * (pp > 1.0))


def _by_group(group: FloatArray, two: float, four: float, eight: float) -> FloatArray:
    return np.interp(np.log2(np.maximum(group, 2.0)), [1.0, 2.0, 3.0], [two, four, eight])


def host_link_factor(group: FloatArray) -> FloatArray:
    """Return the share of its peak that a collective reaches on PCIe over the share reached on NVLink (0.52, fitted).

    From NCCL's all-reduce of 512 MiB on RTX PRO 6000 cards, whose host lets them write to each other: 39, 26 and 25
    GB/s of 64 at 2, 4 and 8 GPUs (aiconfigurator 0.12, rtx_pro_6000_server, NCCL 2.29.2; bus bandwidth). Hosts differ:
    on the L40S machine of the same source 2 GPUs reach the same share, 4 less than half and 8 an eighth of these. Log-
    linear between, constant beyond.
    """
    return _by_group(group, 1.15, 0.79, 0.74)


def host_link_floor(group: FloatArray) -> FloatArray:
    """Return the latency that the host link adds to the floor of a collective, in seconds.

    vLLM's own all-reduce is off for more than two GPUs without NVLink between all (vllm issue 13719), and NCCL's ring
    has a hop of several microseconds per GPU. The mean of vLLM's all-reduce of 1 kB on RTX PRO 6000 (vLLM 0.24) and
    L40S (0.22), 4.7, 13.2 and 25.3 us at 2, 4 and 8 GPUs, less that on H100 SXM (0.24), 4.2, 4.5 and 4.6 us; all from
    aiconfigurator 0.12.
    """
    return 1e-6 * _by_group(group, 0.5, 8.7, 20.7)
