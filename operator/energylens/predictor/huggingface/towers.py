"""Weights besides the text part of a multimodal model: vision and audio encoders, and their projectors.

An engine loads them with the text part. The shapes follow the modelling code of transformers 5.24.0; for the Kimi
models and InternVL's own format, the publishers' code. Norms and biases are ignored, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from energylens.predictor.huggingface.encoders import AUDIO, VISION
from energylens.predictor.huggingface.fields import Fields
from energylens.predictor.model.architecture import Tower
from energylens.records import dataclass

TEXT_PARTS = ("text_config", "llm_config", "language_config")
_NAMED_TOWERS = (
    "audio_encoder",
    "audio_processor",
    "audio_tower",
    "embd_layer",
    "img_processor",
    "mm_audio_tower",
    "mm_vision_tower",
    "vision_encoder",
    "vision_tower",
    "visual",
)
"""Fields that name an encoder without its shape, or describe an unknown kind of encoder."""
UNSERVED = {
    "talker_config": "talker",
    "token2wav_config": "vocoder",
    "code2wav_config": "vocoder",
}
"""Speech output parts, which vLLM and SGLang do not load: they serve the thinker of Qwen-Omni."""
_SHAPES = (
    "d_model",
    "depth",
    "embed_dim",
    "encoder_layers",
    "hidden_size",
    "layers",
    "n_layer",
    "n_layers",
    "num_hidden_layers",
    "num_layers",
    "width",
)
"""Fields by which a nested object describes layers."""

_HEADS = ("num_attention_heads", "num_heads", "vt_num_attention_heads", "encoder_attention_heads")
_WIDTHS = ("intermediate_size", "vt_intermediate_size", "encoder_ffn_dim")

Projector = Callable[[Fields, Fields, int], int]
"""Function from the whole file, the encoder and the hidden size of the text part to the number of parameters."""


@dataclass(frozen=True)
class Multimodal:
    """The parts of a multimodal ``model_type`` besides its text part."""

    vision: str = ""
    """Encoder if ``vision_config`` names none; empty for no encoder."""
    audio: str = ""
    """Encoder if ``audio_config`` names none; empty for no encoder."""
    project: Projector | None = None
    """Function for the parameters of the projector between encoder and text part; None if the encoder includes it."""


def tower_parameters(outer: Fields, fields: Fields) -> int:
    """Return the parameters that an engine loads besides the text part.

    Args:
        outer: The whole file.
        fields: The text part, after reading.

    Raises:
        UnsupportedConfigError: The file has a part with unknown weights.
    """
    holder = outer.child("thinker_config") or outer
    text = fields.integer("hidden_size")
    total = 0
    for key, encoders in (("vision_config", VISION), ("audio_config", AUDIO)):
        tower = holder.child(key)
        if tower is None or not tower.values:
            continue
        kind = _multimodal(holder, outer, key)
        name = tower.text("model_type") or (kind.vision if key == "vision_config" else kind.audio)
        encoder = encoders.get(name)
        if encoder is None:
            allowed = f"one of {', '.join(sorted(encoders))}, whose weights are known"
            raise tower.error("model_type", allowed, name or None)
        total += encoder(tower)
        if kind.project is not None:
            total += kind.project(holder, tower, text)
    for part in {id(holder): holder, id(outer): outer}.values():
        _reject_other_parts(part)
    return total


def read_towers(outer: Fields) -> tuple[Tower, ...]:
    """Return the heads and widths of the encoders besides the text part, as far as the file states them.

    Defaults of configuration classes are not used, because trimmed files have other encoders than the class's defaults.

    Args:
        outer: The whole file, whose encoders have been counted.

    Raises:
        UnsupportedConfigError: A number is out of range.
    """
    holder = outer.child("thinker_config") or outer
    found = []
    for key, part in (("vision_config", "vision"), ("audio_config", "audio")):
        tower = holder.child(key)
        if tower is None or not tower.values:
            continue
        kind = _multimodal(holder, outer, key)
        name = tower.text("model_type") or (kind.vision if part == "vision" else kind.audio)
        heads = tower.optional_integer(*_HEADS)
        found.append(Tower(name, part, heads, tower.optional_integer(*_WIDTHS)))
    return tuple(found)


def unserved_parts(config: Mapping[str, object]) -> tuple[str, ...]:
    """Return the parts of a checkpoint that engines do not load by default, such as a talker.

    Args:
        config: The parsed ``config.json``.
    """
    parts = [word for key, word in UNSERVED.items() if config.get(key)]
    text = next((config[key] for key in TEXT_PARTS if isinstance(config.get(key), Mapping)), config)
    names = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules", "mtp_transformer_layers")
    if isinstance(text, Mapping) and any(text.get(name) for name in names):
        parts.append("multi-token prediction")
    return tuple(dict.fromkeys(parts))


def _multimodal(holder: Fields, outer: Fields, key: str) -> Multimodal:
    classes = [name for name in outer.array("architectures") or [] if isinstance(name, str)]
    names = [_OF_ARCHITECTURE[name] for name in classes if name in _OF_ARCHITECTURE]
    names += [holder.text("model_type"), outer.text("model_type")]
    kind = next((MULTIMODAL[name] for name in names if name in MULTIMODAL), None)
    if kind is None or not (kind.vision if key == "vision_config" else kind.audio):
        known = ", ".join(sorted(n for n, m in MULTIMODAL.items() if (m.vision if key == "vision_config" else m.audio)))
        allowed = f"one whose {key} is known ({known}), or no {key}"
        raise holder.error("model_type", allowed, holder.text("model_type") or None)
    return kind


def _reject_other_parts(holder: Fields) -> None:
    for name in _NAMED_TOWERS:
        if holder.get(name):
            raise holder.error(name, "absent (it names weights without describing them)", holder.get(name))
    for name, value in holder.values.items():
        if name in holder.used or name in (*UNSERVED, *TEXT_PARTS, "thinker_config") or not isinstance(value, Mapping):
            continue
        if any(value.get(shape) is not None for shape in _SHAPES):
            raise holder.error(name, "absent (a part with unknown weights)", dict(value))


def _mlp(holder: Fields, tower: Fields, text: int) -> int:
    """Return LLaVA's projector: two layers from the features of one or several layers of the encoder."""
    picked = holder.get("vision_feature_layer")
    features = len(picked) if isinstance(picked, list) and picked else 1
    return features * tower.integer("hidden_size") * text + text * text


def _linear(holder: Fields, tower: Fields, text: int) -> int:
    return tower.integer("hidden_size") * text


def _two_layers_of_pixels(holder: Fields, tower: Fields, text: int) -> int:
    """Return InternVL's projector: four neighbouring patches (at the usual downsampling by half) become one token."""
    ratio = holder.get("downsample_ratio")
    side = 2 if ratio is None else round(1 / ratio) if isinstance(ratio, float) and 0.0625 <= ratio <= 1 else 0
    if not side:
        raise holder.error("downsample_ratio", "a number from 0.0625 to 1", ratio)
    return side * side * tower.integer("hidden_size") * text + text * text


def _shuffled(holder: Fields, tower: Fields, text: int) -> int:
    """Return the projector of Idefics 3 and SmolVLM."""
    factor = holder.integer("scale_factor", default=2, high=64)
    return factor * factor * tower.integer("hidden_size") * text


def _perceiver(holder: Fields, tower: Fields, text: int) -> int:
    """Return Idefics 2's projector: a gated network to the text width, and a resampler with cross-attention."""
    nested = holder.child("text_config")
    width = 14336 if nested is None else nested.integer("intermediate_size", default=14336)
    resampler = holder.child("perceiver_config") or Fields({}, holder.model, holder.path + "perceiver_config.")
    heads = resampler.integer("resampler_n_heads", default=16)
    head_dim = resampler.integer("resampler_head_dim", default=96)
    kv_heads = resampler.integer("num_key_value_heads", default=4)
    layer = 2 * text * (heads + kv_heads) * head_dim + 3 * text * 4 * text
    return (
        2 * tower.integer("hidden_size") * width
        + width * text
        + resampler.integer("resampler_depth", default=3) * layer
    )


def _merged(holder: Fields, tower: Fields, text: int) -> int:
    """Return Mistral 3's projector: patches are merged before the two layers."""
    hidden, merge = tower.integer("hidden_size"), holder.integer("spatial_merge_size", default=2, high=64)
    return merge * merge * hidden * hidden + hidden * text + text * text


def _llama4(holder: Fields, tower: Fields, text: int) -> int:
    between, out = tower.integer("projector_input_dim", default=4096), tower.integer("vision_output_dim", default=7680)
    adapter = tower.integer("intermediate_size") * between
    return adapter + between * tower.integer("projector_output_dim", default=4096) + out * text


def _aligned(holder: Fields, tower: Fields, text: int) -> int:
    """Return the projector of Aya and Command A Vision: with SwiGLU half of the first layer's width remains."""
    factor = holder.integer("downsample_factor", default=2, high=64)
    width = holder.integer("alignment_intermediate_size", default=36864)
    return factor * factor * tower.integer("hidden_size") * width + width // 2 * text


def _patch_merger(holder: Fields, tower: Fields, text: int) -> int:
    """Return Kimi's projector: four concatenated patches, a square layer, and a layer to the text width."""
    four = 4 * tower.integer("hidden_size", "vt_hidden_size", "mm_hidden_size", default=1152)
    return four * four + four * text


def _step(holder: Fields, tower: Fields, text: int) -> int:
    return 4 * tower.integer("hidden_size") * text


def _minimax(holder: Fields, tower: Fields, text: int) -> int:
    width = holder.integer("projector_hidden_size", default=6144)
    merge = tower.integer("spatial_merge_size", default=2, high=64)
    # One pair of layers per patch, and one for merging the patches.
    return tower.integer("hidden_size") * width + width * text + merge * merge * text * width + width * text


def _voxtral(holder: Fields, tower: Fields, text: int) -> int:
    """Return Voxtral's projector: four concatenated encoder frames, as wide as the encoder's feed-forward network."""
    return tower.integer("intermediate_size") * text + text * text


def _audio_linear(holder: Fields, tower: Fields, text: int) -> int:
    return tower.integer("d_model", default=1280) * text


_OF_ARCHITECTURE = {
    "Gemma3ForConditionalGeneration": "gemma3",
    "LlavaForConditionalGeneration": "llava",
    "Mistral3ForConditionalGeneration": "mistral3",
}
"""Model class -> ``model_type``, for files that lack the outer ``model_type`` or have the text part's."""

_KIMI = Multimodal("moonvit", project=_patch_merger)
_OMNI_2 = Multimodal("qwen2_5_omni_vision_encoder", "qwen2_5_omni_audio_encoder")
_OMNI_3 = Multimodal("qwen3_omni_moe_vision_encoder", "qwen3_omni_moe_audio_encoder")

MULTIMODAL: dict[str, Multimodal] = {
    "aya_vision": Multimodal("siglip_vision_model", project=_aligned),
    "cohere2_vision": Multimodal("siglip_vision_model", project=_aligned),
    "gemma3": Multimodal("siglip_vision_model", project=_linear),
    "gemma4": Multimodal("gemma4_vision", project=_linear),
    "glm4v": Multimodal("glm4v_vision"),
    "glm4v_moe": Multimodal("glm4v_moe_vision"),
    "idefics2": Multimodal("idefics2_vision", project=_perceiver),
    "idefics3": Multimodal("idefics3_vision", project=_shuffled),
    "internvl": Multimodal("internvl_vision", project=_two_layers_of_pixels),
    "internvl_chat": Multimodal("intern_vit_6b", project=_two_layers_of_pixels),
    "kimi_k25": _KIMI,
    "kimi_k3": _KIMI,
    "kimi_vl": _KIMI,
    "llama4": Multimodal("llama4_vision_model", project=_llama4),
    "llava": Multimodal("clip_vision_model", project=_mlp),
    "llava_next": Multimodal("clip_vision_model", project=_mlp),
    "llava_onevision": Multimodal("siglip_vision_model", project=_mlp),
    "minimax_m3_vl": Multimodal("minimax_m3_vl_vision", project=_minimax),
    "mistral3": Multimodal("pixtral", project=_merged),
    "paligemma": Multimodal("siglip_vision_model", project=_linear),
    "qwen2_5_omni": _OMNI_2,
    "qwen2_5_omni_thinker": _OMNI_2,
    "qwen2_5_vl": Multimodal("qwen2_5_vl"),
    "qwen2_audio": Multimodal(audio="qwen2_audio_encoder", project=_audio_linear),
    "qwen2_vl": Multimodal("qwen2_vl"),
    "qwen3_5": Multimodal("qwen3_5"),
    "qwen3_5_moe": Multimodal("qwen3_5_moe"),
    "qwen3_omni_moe": _OMNI_3,
    "qwen3_omni_moe_thinker": _OMNI_3,
    "qwen3_vl": Multimodal("qwen3_vl"),
    "qwen3_vl_moe": Multimodal("qwen3_vl_moe"),
    "smolvlm": Multimodal("smolvlm_vision", project=_shuffled),
    "step3p7": Multimodal("step3p5_vision", project=_step),
    "voxtral": Multimodal(audio="voxtral_encoder", project=_voxtral),
}
"""Outer ``model_type`` -> the parts besides the text part."""
