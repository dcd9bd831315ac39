"""Einsums: the computation of a transformer, written as tensor contractions over named ranks.

An :class:`Einsum` states its equation, the sizes of its ranks, and which rank is split over GPUs. FLOPs, bytes by
memory level and the collective that the split implies are derived from it; nothing is entered per model. The idea
follows EnergyLens (arXiv 2605.14249) and the extended einsum notation of the tensor-accelerator literature.

Rank letters with a fixed meaning:

* ``t``: tokens of the step. It never belongs to a weight.
* ``c``: tokens of context to which a query attends; it belongs to a cached operand.

All other letters are free and take their size from :attr:`Einsum.sizes`.
"""

from __future__ import annotations

from dataclasses import field
from enum import Enum
from functools import cached_property

import numpy as np

from energylens.predictor.model.architecture import Quantization
from energylens.predictor.types import FloatArray
from energylens.records import dataclass

TOKEN_RANK = "t"
CONTEXT_RANK = "c"
ACTIVATION_BYTES = 2.0
"""Bytes per activation element: bfloat16 between kernels in every modelled engine."""


class Split(Enum):
    """The GPUs that share the parallel rank of an einsum."""

    NONE = "none"
    """Every GPU of the tensor-parallel group computes the whole einsum."""
    TENSOR = "tensor"
    EXPERT = "expert"


class Operand(Enum):
    """Location of the second operand of an einsum."""

    WEIGHT = "weight"
    """Read once per step, shared by all tokens."""
    CACHE = "cache"
    """Read once per sequence: keys, values, or a recurrent state."""
    ACTIVATION = "activation"


class Collective(Enum):
    """Communication between GPUs after an einsum."""

    NONE = "none"
    ALL_REDUCE = "all_reduce"
    ALL_GATHER = "all_gather"
    ALL_TO_ALL = "all_to_all"


@dataclass(frozen=True)
class Einsum:
    """One contraction ``tokens x operand -> tokens`` in one layer.

    Args:
        label: Name for reports and tests, such as ``qkv``.
        equation: Two operands and a result, such as ``"tm,mhd->thd"``.
        sizes: Size of every rank except ``t`` and ``c``.
        parallel: The rank that is split over GPUs; empty for none.
        split: The GPUs that share this rank.
        operand: Location of the second operand.
        quant: Storage and arithmetic of the second operand.
        kernel: Kernel class, the key of the calibrated coefficients.
        fused_with_next: Whether one kernel computes this einsum and the next one (attention scores and values,
            projections of merged weights).
        gather: Whether all GPUs need the whole split result (logits).
        launches: Kernels that the result takes, with those that select from it.
    """

    label: str
    equation: str
    sizes: tuple[tuple[str, int], ...]
    parallel: str = ""
    split: Split = Split.NONE
    operand: Operand = Operand.WEIGHT
    quant: Quantization = field(default_factory=Quantization)
    kernel: str = "gemm"
    fused_with_next: bool = False
    gather: bool = False
    launches: int = 1

    def __post_init__(self) -> None:
        left, result = self.equation.split("->")
        named = set(left.replace(",", "")) | set(result)
        missing = named - set(self.size_of) - {TOKEN_RANK, CONTEXT_RANK}
        if missing:
            raise ValueError(f"einsum {self.label!r}: rank {sorted(missing)[0]!r} of {self.equation!r} has no size")
        if self.parallel and self.parallel not in named:
            raise ValueError(f"einsum {self.label!r}: parallel rank {self.parallel!r} is not in {self.equation!r}")

    @cached_property
    def size_of(self) -> dict[str, int]:
        """Rank letter -> size."""
        return dict(self.sizes)

    @cached_property
    def operands(self) -> tuple[str, str]:
        """Rank letters of the activation operand and of the second operand."""
        first, second = self.equation.split("->")[0].split(",")
        return first, second

    @cached_property
    def result(self) -> str:
        """Rank letters of the result."""
        return self.equation.split("->")[1]

    @cached_property
    def ranks(self) -> str:
        """All rank letters, each once."""
        return "".join(dict.fromkeys("".join(self.operands) + self.result))

    def volume(self, ranks: str) -> float:
        """Return the number of elements that some ranks span, with ``t`` and ``c`` as 1, before any split."""
        product = 1.0
        for rank in ranks:
            product *= self.size_of.get(rank, 1)
        return product

    def share(self, gpus: FloatArray) -> FloatArray:
        """Return the part of the parallel rank that the most loaded of ``gpus`` GPUs holds, shape of ``gpus``.

        A rank smaller than the group is replicated (grouped-query attention with fewer KV heads than GPUs).
        """
        if not self.parallel:
            return np.ones_like(gpus)
        size = float(self.size_of[self.parallel])
        return np.ceil(size / np.minimum(gpus, size)) / size

    @cached_property
    def flops_per_token(self) -> float:
        """FLOPs per token, with multiply-adds counted twice; for an einsum with ``c``, per token of context."""
        return 2.0 * self.volume(self.ranks)

    @cached_property
    def operand_elements(self) -> float:
        """Elements of the second operand; for a cache, per sequence (and per token of context if it has ``c``)."""
        return self.volume(self.operands[1])

    @cached_property
    def input_elements(self) -> float:
        """Elements of the activation operand per token."""
        return self.volume(self.operands[0])

    @cached_property
    def result_elements(self) -> float:
        """Elements of the result per token."""
        return self.volume(self.result)

    @cached_property
    def collective(self) -> Collective:
        """Collective that the split implies: a sum over a split rank leaves partial sums, hence an all-reduce."""
        if self.split is Split.TENSOR and self.parallel and self.parallel not in self.result:
            return Collective.ALL_REDUCE
        if self.gather:
            return Collective.ALL_GATHER
        return Collective.NONE
