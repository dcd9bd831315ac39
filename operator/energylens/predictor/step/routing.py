"""How evenly a model's router distributes tokens over its experts."""

from __future__ import annotations

from energylens.predictor.model.architecture import ModelSpec, MoeFfn

ROUTING_SKEW = 0.9
"""Standard deviation of the logarithm of an expert's popularity within one step. Among 1.2, 0.9 and 0.6, the value 0.9
agrees best with left-out mixtures of experts of vLLM 0.11.1 and of the GPU types."""
BALANCED_SKEW = 0.3
"""The same for routers with a bias on every expert's score that is adjusted until all get similar numbers of tokens
(arXiv 2408.15664)."""
BALANCED_FAMILIES = frozenset(
    (
        "bailing_moe_v2", "deepseek_ref", "deepseek_v3", "deepseek_v32", "deepseek_v4", "dots1", "ernie4_5_moe",
        "glm4_moe", "glm4_moe_lite", "glm4v_moe", "glm_moe_dsa", "kimi_k2", "kimi_linear", "mimo_v2_flash",
        "minimax_m2", "minimax_m3", "nemotron_h", "step3p5", "step3p7",
    )
)  # fmt: skip
"""Families whose releases have such a bias: ``use_routing_bias``, ``use_moe_router_bias`` or ``topk_method: noaux_tc``
in their config.json, or a correction bias among their weights."""


def routing_skew(model: ModelSpec) -> float:
    """Return the unevenness of a model's routing, see `energylens.predictor.step.moe.experts_hit`."""
    for group in model.layers:
        if isinstance(group.ffn, MoeFfn) and group.ffn.skew is not None:
            return group.ffn.skew
    return BALANCED_SKEW if model.family in BALANCED_FAMILIES else ROUTING_SKEW
