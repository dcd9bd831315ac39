"""Parameters of vision and audio encoders, by the ``model_type`` of ``vision_config`` and ``audio_config``.

Shapes and defaults are those of transformers 5.24.0; for MoonViT (Kimi) and InternViT, those of the publishers' code.
"""

from __future__ import annotations

from collections.abc import Callable

from energylens.predictor.huggingface.fields import MAX_LAYERS, Fields

Encoder = Callable[[Fields], int]


def _layers(layers: int, hidden: int, width: int, gated: bool = False) -> int:
    """Return the parameters of layers with four square attention matrices and a feed-forward network each."""
    return layers * (4 * hidden * hidden + (3 if gated else 2) * hidden * width)


def _side(fields: Fields, name: str, default: int) -> int:
    """Return a length in pixels, which some files give as [height, width]."""
    value = fields.get(name)
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        return Fields({name: value[0]}, fields.model, fields.path).integer(name, high=1 << 16)
    return fields.integer(name, default=default, high=1 << 16)


def _shape(fields: Fields, hidden: int, width: int, layers: int) -> tuple[int, int, int]:
    fields.understand({}, {"hidden_size": hidden, "intermediate_size": width, "num_hidden_layers": layers})
    return (
        fields.integer("hidden_size"),
        fields.integer("intermediate_size"),
        fields.integer("num_hidden_layers", high=MAX_LAYERS),
    )


def _vit(hidden: int, width: int, layers: int, image: int, patch: int, gated: bool = False) -> Encoder:
    """Return the parameter count of a plain vision transformer with these defaults and a learned position table."""

    def count(fields: Fields) -> int:
        h, i, n = _shape(fields, hidden, width, layers)
        side = _side(fields, "patch_size", patch)
        total = _layers(n, h, i, gated) + fields.integer("num_channels", default=3, high=64) * side * side * h
        # Pixtral has rotary positions, without a table.
        return total if gated else total + (_side(fields, "image_size", image) // side) ** 2 * h

    return count


def _qwen_patches(fields: Fields, hidden: int, patch: int) -> int:
    channels = fields.integer("in_channels", "in_chans", default=3, high=64)
    side = _side(fields, "patch_size", patch)
    return channels * fields.integer("temporal_patch_size", default=2, high=64) * side * side * hidden


def _merger(fields: Fields, hidden: int, out: int) -> int:
    """Return the parameters of a merger: concatenated patches, a square layer, and a layer to the text width."""
    side = fields.integer("spatial_merge_size", default=2, high=64)
    wide = side * side * hidden
    return wide * wide + wide * out


def _qwen2_vl(fields: Fields) -> int:
    hidden, depth = fields.integer("embed_dim", default=1280), fields.integer("depth", default=32, high=MAX_LAYERS)
    ratio = fields.get("mlp_ratio")
    if ratio is not None and (isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= 64):
        raise fields.error("mlp_ratio", "a number above 0 and at most 64", ratio)
    width = round((4 if ratio is None else ratio) * hidden)
    out = fields.integer("hidden_size", default=3584)
    return _layers(depth, hidden, width) + _qwen_patches(fields, hidden, 14) + _merger(fields, hidden, out)


def _qwen2_5_vl(fields: Fields) -> int:
    hidden, depth = fields.integer("hidden_size", default=3584), fields.integer("depth", default=32, high=MAX_LAYERS)
    layers = _layers(depth, hidden, fields.integer("intermediate_size", default=3420), gated=True)
    out = fields.integer("out_hidden_size", default=3584)
    return layers + _qwen_patches(fields, hidden, 14) + _merger(fields, hidden, out)


def _qwen3_vl(deepstack: int) -> Encoder:
    def count(fields: Fields) -> int:
        hidden = fields.integer("hidden_size", default=1152)
        depth = fields.integer("depth", default=27, high=MAX_LAYERS)
        layers = _layers(depth, hidden, fields.integer("intermediate_size", default=4304))
        out = fields.integer("out_hidden_size", default=3584)
        listed = fields.array("deepstack_visual_indexes")
        mergers = 1 + (deepstack if listed is None else len(listed))
        table = fields.integer("num_position_embeddings", default=2304) * hidden
        return layers + table + _qwen_patches(fields, hidden, 16) + mergers * _merger(fields, hidden, out)

    return count


def _glm4v(fields: Fields) -> int:
    hidden, depth = fields.integer("hidden_size", default=1536), fields.integer("depth", default=24, high=MAX_LAYERS)
    out = fields.integer("out_hidden_size", default=4096)
    merge = fields.integer("spatial_merge_size", default=2, high=64)
    table = (_side(fields, "image_size", 336) // _side(fields, "patch_size", 14)) ** 2 * hidden
    # The networks of the blocks are as wide as the text part; the merger's network has its own width.
    merger = out * out + 3 * out * fields.integer("intermediate_size", default=13696)
    total = _layers(depth, hidden, out, gated=True) + table + _qwen_patches(fields, hidden, 14)
    return total + merger + merge * merge * hidden * out


def _gemma4(fields: Fields) -> int:
    hidden, width, layers = _shape(fields, 768, 3072, 16)
    side = _side(fields, "patch_size", 16)
    table = 2 * fields.integer("position_embedding_size", default=10240) * hidden
    return _layers(layers, hidden, width, gated=True) + table + 3 * side * side * hidden


def _moonvit(fields: Fields) -> int:
    hidden = fields.integer("hidden_size", "vt_hidden_size", default=1152)
    width = fields.integer("intermediate_size", "vt_intermediate_size", default=4304)
    layers = fields.integer("num_hidden_layers", "vt_num_hidden_layers", default=27, high=MAX_LAYERS)
    inner = fields.integer("qkv_hidden_size", default=hidden)
    side = _side(fields, "patch_size", 14)
    rows = fields.integer("init_pos_emb_height", default=64) * fields.integer("init_pos_emb_width", default=64)
    return layers * (4 * hidden * inner + 2 * hidden * width) + (3 * side * side + rows) * hidden


def _step(fields: Fields) -> int:
    hidden, width, layers = _shape(fields, 1536, 3072, 47)
    side = _side(fields, "patch_size", 14)
    table = (_side(fields, "image_size", 728) // side) ** 2 * hidden
    # Two 3x3 convolutions, each doubling the width.
    return _layers(layers, hidden, width) + table + 3 * side * side * hidden + 9 * (2 + 8) * hidden * hidden


def _minimax(fields: Fields) -> int:
    hidden, width, layers = _shape(fields, 1280, 5120, 32)
    return _layers(layers, hidden, width) + _qwen_patches(fields, hidden, 14)


def _whisper(fields: Fields, positions: bool = True) -> int:
    fields.understand(
        {
            "d_model": ("d_model", "hidden_size"),
            "encoder_layers": ("encoder_layers", "num_hidden_layers"),
            "encoder_ffn_dim": ("encoder_ffn_dim", "intermediate_size"),
        },
        {"d_model": 1280, "encoder_layers": 32, "encoder_ffn_dim": 5120},
    )
    hidden = fields.integer("d_model")
    layers = fields.integer("encoder_layers", high=MAX_LAYERS)
    convolutions = 3 * hidden * (fields.integer("num_mel_bins", default=128) + hidden)
    table = fields.integer("max_source_positions", default=1500) * hidden if positions else 0
    return _layers(layers, hidden, fields.integer("encoder_ffn_dim")) + convolutions + table


def _qwen2_5_omni(fields: Fields) -> int:
    return _whisper(fields, positions=False) + fields.integer("d_model") * fields.integer("output_dim", default=3584)


def _qwen3_omni(fields: Fields) -> int:
    whisper = _whisper(fields, positions=False)
    hidden, bins = fields.integer("d_model"), fields.integer("num_mel_bins", default=128)
    channels = fields.integer("downsample_hidden_size", default=480)
    # Three 3x3 convolutions with stride two instead of Whisper's two.
    convolutions = 9 * channels * (1 + 2 * channels) + channels * (-(-bins // 8)) * hidden
    projection = hidden * hidden + hidden * fields.integer("output_dim", default=3584)
    return whisper - 3 * hidden * (bins + hidden) + convolutions + projection


_SIGLIP = _vit(768, 3072, 12, 224, 16)
_INTERN = _vit(1024, 4096, 24, 448, 14)
_IDEFICS_3 = _vit(1152, 3072, 12, 224, 32)
_QWEN_3_VL = _qwen3_vl(deepstack=3)
_QWEN_3_5 = _qwen3_vl(deepstack=0)

VISION: dict[str, Encoder] = {
    "clip_vision_model": _vit(768, 3072, 12, 224, 32),
    "gemma4_vision": _gemma4,
    "glm4v": _glm4v,
    "glm4v_moe": _glm4v,
    "glm4v_moe_vision": _glm4v,
    "glm4v_vision": _glm4v,
    "idefics2": _vit(768, 3072, 12, 224, 32),
    "idefics2_vision": _vit(768, 3072, 12, 224, 32),
    "idefics3": _IDEFICS_3,
    "idefics3_vision": _IDEFICS_3,
    "intern_vit_6b": _INTERN,
    "internvl_vision": _INTERN,
    "kimi_k25_vision": _moonvit,
    "llama4_vision_model": _vit(768, 5632, 34, 448, 14),
    "minimax_m3_vl_vision": _minimax,
    "moonvit": _moonvit,
    "pixtral": _vit(1024, 4096, 24, 1024, 16, gated=True),
    "qwen2_5_omni_vision_encoder": _qwen2_5_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen2_5_vl_vision": _qwen2_5_vl,
    "qwen2_vl": _qwen2_vl,
    "qwen2_vl_vision": _qwen2_vl,
    "qwen3_5": _QWEN_3_5,
    "qwen3_5_moe": _QWEN_3_5,
    "qwen3_5_moe_vision": _QWEN_3_5,
    "qwen3_5_vision": _QWEN_3_5,
    "qwen3_omni_moe_vision_encoder": _QWEN_3_VL,
    "qwen3_vl": _QWEN_3_VL,
    "qwen3_vl_moe": _QWEN_3_VL,
    "qwen3_vl_moe_vision": _QWEN_3_VL,
    "qwen3_vl_vision": _QWEN_3_VL,
    "siglip_vision_model": _SIGLIP,
    "smolvlm_vision": _IDEFICS_3,
    "step3p5_vision": _step,
}
"""Encoder in ``vision_config`` -> function that counts its parameters."""

AUDIO: dict[str, Encoder] = {
    "qwen2_5_omni_audio_encoder": _qwen2_5_omni,
    "qwen2_audio_encoder": _whisper,
    "qwen3_omni_moe_audio_encoder": _qwen3_omni,
    "voxtral_encoder": _whisper,
    "whisper": _whisper,
}
"""Encoder in ``audio_config`` -> function that counts its parameters."""
