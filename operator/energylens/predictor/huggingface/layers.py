"""Models whose layers differ in kind: Nemotron-H, Llama-Nemotron, Granite 4 and Bamba."""

from __future__ import annotations

from collections.abc import Mapping

from energylens.predictor.huggingface.ffn import read_dense, read_expert_count, read_gated, read_moe
from energylens.predictor.huggingface.fields import MAX_LAYERS, Fields
from energylens.predictor.huggingface.mixers import read_attention, read_head_dim, read_mamba2
from energylens.predictor.model.architecture import DenseFfn, FeedForward, Mamba2, Mixer

Layer = tuple[Mixer | None, FeedForward | None]


def read_nemotron_hybrid(fields: Fields, family: str, hidden: int) -> list[Layer]:
    """Read Nemotron-H: each layer is one of Mamba-2 (M), attention (*), dense (-) or expert (E) feed-forward."""
    # Since 5.24 the transformers library writes the generic names.
    words = {"mamba": "M", "linear_attention": "M", "attention": "*", "full_attention": "*", "mlp": "-", "moe": "E"}
    kinds = fields.array("layers_block_type")
    if kinds is not None:
        for kind in kinds:
            if not isinstance(kind, str) or kind not in words:
                raise fields.error("layers_block_type", "a list of " + ", ".join(words), kind)
        pattern = "".join(words[kind] for kind in kinds)
    else:
        pattern = fields.text("hybrid_override_pattern")
        unknown = sorted(set(pattern) - set(words.values()))
        if unknown:
            raise fields.error("hybrid_override_pattern", "the letters M * - E", unknown[0])
    if not 1 <= len(pattern) <= MAX_LAYERS:
        raise fields.error("hybrid_override_pattern", f"1 to {MAX_LAYERS} layers", pattern)
    expected = fields.optional_integer("num_hidden_layers", high=MAX_LAYERS)
    if expected is not None and expected != len(pattern):
        raise fields.error("num_hidden_layers", f"{len(pattern)}, the length of the layer pattern", expected)
    gated = read_gated(fields, family)
    layer_of: dict[str, Layer] = {}
    if "M" in pattern:
        layer_of["M"] = (read_mamba2(fields), None)
    if "*" in pattern:
        layer_of["*"] = (read_attention(fields, hidden), None)
    if "-" in pattern:
        layer_of["-"] = (None, read_dense(fields, gated))
    if "E" in pattern:
        experts = read_expert_count(fields)
        if experts is None:
            raise fields.error("n_routed_experts", "an integer above 1, since some layers are of type E (moe)")
        layer_of["E"] = (None, read_moe(fields, family, experts, gated))
    return [layer_of[letter] for letter in pattern]


def read_searched_layers(fields: Fields, hidden: int) -> list[Layer]:
    """Read Llama-Nemotron, where architecture search gave each layer its own attention and feed-forward, or none."""
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    heads = fields.integer("num_attention_heads")
    blocks = fields.array("block_configs") or []
    if len(blocks) != layers:
        raise fields.error("block_configs", f"one entry for each of the {layers} layers", blocks)
    head_dim = read_head_dim(fields, hidden, heads)
    out: list[Layer] = []
    for i, block in enumerate(blocks):
        if not isinstance(block, Mapping):
            raise fields.error(f"block_configs[{i}]", "an object with attention and ffn", block)
        parts = Fields(block, fields.model, f"{fields.path}block_configs[{i}].")
        attention, ffn = parts.child("attention"), parts.child("ffn")
        if attention is None or ffn is None:
            raise parts.error("attention and ffn", "objects")
        for part in (attention, ffn):
            if part.boolean("replace_with_linear"):
                raise part.error("replace_with_linear", "false", True)
        mixer: Mixer | None = None
        if not attention.boolean("no_op"):
            group = attention.integer("n_heads_in_group", high=heads)
            if heads % group:
                raise attention.error("n_heads_in_group", f"a divisor of the {heads} attention heads", group)
            mixer = read_attention(
                Fields(
                    {"num_attention_heads": heads, "num_key_value_heads": heads // group, "head_dim": head_dim},
                    fields.model,
                ),
                hidden,
            )
        out.append((mixer, None if ffn.boolean("no_op") else DenseFfn(_searched_width(ffn, hidden))))
    return out


def _searched_width(ffn: Fields, hidden: int) -> int:
    """Return two thirds of ``ffn_mult`` x hidden x 2, rounded up to a multiple of 256 (the model's own rule)."""
    multiplier = ffn.get("ffn_mult")
    if isinstance(multiplier, bool) or not isinstance(multiplier, int | float) or not 0 < multiplier <= 64:
        raise ffn.error("ffn_mult", "a number above 0 and at most 64", multiplier)
    return -(-int(2 * multiplier * hidden / 3) // 256) * 256


def read_mamba_hybrid(fields: Fields, family: str, hidden: int) -> list[Layer]:
    """Read Granite 4 and Bamba: each layer has attention or Mamba-2 as its mixer, and a feed-forward part.

    Raises:
        UnsupportedConfigError: A field is missing, out of range or of an unknown kind.
    """
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    choices = ("attention", "mamba", "full_attention", "linear_attention")
    kinds = fields.per_layer("layer_types", "layers_block_type", layers=layers, choices=choices)
    if kinds is None:
        attention = fields.array("attn_layer_indices")
        if attention is None:
            raise fields.error("layer_types or attn_layer_indices", "attention or mamba for each layer")
        for number in attention:
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < layers:
                raise fields.error("attn_layer_indices", f"layer numbers from 0 to {layers - 1}", number)
        kinds = ["attention" if i in attention else "mamba" for i in range(layers)]
    gated = read_gated(fields, family)
    experts = read_expert_count(fields)
    ffn: FeedForward
    if experts is not None:
        ffn = read_moe(fields, family, experts, gated)
    else:
        # Granite 4 without experts still has the network of the shared expert.
        name = "shared_intermediate_size" if family == "granitemoehybrid" else "intermediate_size"
        ffn = DenseFfn(fields.integer(name), gated)
    mixer_of: dict[str, Mixer] = {}
    for kind in dict.fromkeys(kinds):
        attends = kind in ("attention", "full_attention")
        mixer_of[kind] = read_attention(fields, hidden) if attends else _mamba_of_transformers(fields, hidden)
    return [(mixer_of[kind], ffn) for kind in kinds]


def _mamba_of_transformers(fields: Fields, hidden: int) -> Mamba2:
    heads = fields.integer("mamba_n_heads", default=128)
    inner = fields.integer("mamba_expand", default=2, high=64) * hidden
    width = fields.get("mamba_d_head")
    head_dim = inner // heads if width in (None, "auto") else fields.integer("mamba_d_head")
    if heads * head_dim != inner:
        allowed = f"mamba_expand x hidden_size, {inner}, over mamba_n_heads, {heads}"
        raise fields.error("mamba_d_head", allowed, head_dim)
    return Mamba2(
        heads=heads,
        head_dim=head_dim,
        state_size=fields.integer("mamba_d_state", default=256),
        groups=fields.integer("mamba_n_groups", default=1),
        conv_kernel=fields.integer("mamba_d_conv", default=4, high=64),
    )
