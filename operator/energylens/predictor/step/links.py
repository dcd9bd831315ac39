"""Which link the messages of a group of GPUs use, and what the slower link costs.

NVLink connects the GPUs of an island: all GPUs of an HGX board, the two or four cards of a bridge, the 72 GPUs of an
NVL72 rack. Messages between islands use the host link, which is PCIe, and messages between nodes also a network. If the
network's speed is known, the GPUs of a node share it, and PCIe is not shared between GPUs that NVLink connects. If the
speed is unknown, the figures of the PCIe link on the way are used.

Kubernetes does not place a group of GPUs on one island: the device plugin prefers GPUs with better links
(``gpuallocator`` of NVIDIA/go-gpuallocator, best-effort policy), and the kubelet may not follow.
"""

from __future__ import annotations

import numpy as np

from energylens.predictor.model.einsum import Collective
from energylens.predictor.types import FloatArray, GpuSpec, IntArray, Layouts

LARGEST_BOARD = 16
"""Most GPUs that NVLink connects in one node; a larger island is a rack whose nodes are also connected by NVLink."""


def nvlink_island(gpu: GpuSpec, layouts: Layouts) -> IntArray:
    """Return the number of GPUs that NVLink connects for each layout, shape (n,); 1 without NVLink."""
    island = gpu.gpus_per_nvlink_island if gpu.nvlink_bandwidth else 1
    if island == 1 or island > LARGEST_BOARD:
        return np.full(len(layouts), island)
    return np.minimum(island, _node_gpus(gpu, layouts))


def node_size(gpu: GpuSpec, layouts: Layouts) -> IntArray:
    """Return the number of GPUs beyond which messages of each layout use a network, shape (n,).

    They are the GPUs of a node, or of a rack with NVLink.
    """
    return np.maximum(_node_gpus(gpu, layouts), nvlink_island(gpu, layouts))


def _node_gpus(gpu: GpuSpec, layouts: Layouts) -> IntArray:
    return np.where(layouts.node_gpus > 0, layouts.node_gpus, gpu.max_gpus_per_node)


def host_share(kind: Collective, group: FloatArray, island: int | IntArray) -> FloatArray:
    """Return the share of each GPU's bytes that a collective sends over the host link, shape of ``group``.

    A ring passes all of its bytes over each hop (Thakur et al., IJHPCA 2005), so a single hop between islands limits
    it. All-to-all sends an equal part to every other GPU, and uses NVLink for GPUs of the same island.

    Args:
        kind: The collective.
        group: Number of participating GPUs, at least 1.
        island: Number of GPUs that NVLink connects, a number or shape (n,).
    """
    if kind is Collective.ALL_TO_ALL:
        return np.asarray(np.maximum(group - island, 0.0) / np.maximum(group - 1.0, 1.0))
    return np.asarray(group > island, dtype=np.float64)


def stage_share(tp: FloatArray, pp: FloatArray, island: int | IntArray) -> FloatArray:
    """Return the share of a pipeline's stage borders that lie between islands, shape (n,).

    Engines number GPUs with tensor parallelism innermost, so that consecutive stages share an island as far as they
    fit.

    Args:
        tp: GPUs per stage, shape (n,).
        pp: Number of stages, shape (n,).
        island: Number of GPUs that NVLink connects, a number or shape (n,).
    """
    borders = np.maximum(pp - 1.0, 1.0)
    return np.asarray(np.minimum(np.ceil(tp * pp / island) - 1.0, borders) / borders * (pp > 1.0))


def _by_group(group: FloatArray, two: float, four: float, eight: float) -> FloatArray:
    return np.interp(np.log2(np.maximum(group, 2.0)), [1.0, 2.0, 3.0], [two, four, eight])


def host_link_factor(group: FloatArray) -> FloatArray:
    """Return the share of the PCIe peak that a collective reaches, relative to its share on NVLink (0.52, fitted).

    Derived from NCCL's all-reduce of 512 MiB on RTX PRO 6000 cards whose host supports peer access: 39, 26 and 25 GB/s
    of 64 at 2, 4 and 8 GPUs (aiconfigurator 0.12, rtx_pro_6000_server, NCCL 2.29.2; bus bandwidth). Hosts differ: on
    the L40S machine of the same source 2 GPUs reach the same share, 4 GPUs less than half and 8 GPUs an eighth of it.
    Log-linear in between, constant beyond.
    """
    return _by_group(group, 1.15, 0.79, 0.74)


def host_link_floor(group: FloatArray) -> FloatArray:
    """Return the latency, s, that the host link adds to the floor of a collective.

    vLLM's own all-reduce is off for more than two GPUs without NVLink between all (vllm issue 13719), and NCCL's ring
    has a hop of several microseconds per GPU. The value is the mean of vLLM's all-reduce of 1 kB on RTX PRO 6000 (vLLM
    0.24) and L40S (0.22), 4.7, 13.2 and 25.3 us at 2, 4 and 8 GPUs, minus that on H100 SXM (0.24), 4.2, 4.5 and 4.6 us;
    all from aiconfigurator 0.12.
    """
    return 1e-6 * _by_group(group, 0.5, 8.7, 20.7)
