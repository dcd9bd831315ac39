"""The class by which engines choose their code for a model: ``architectures`` of config.json, or the usual class."""

from __future__ import annotations

from energylens.predictor.huggingface.fields import Fields

USUAL_CLASSES = {
    "afmoe": "AfmoeForCausalLM",
    "aya_vision": "AyaVisionForConditionalGeneration",
    "baichuan": "BaichuanForCausalLM",
    "bamba": "BambaForCausalLM",
    "bloom": "BloomForCausalLM",
    "chatglm": "ChatGLMModel",
    "cohere": "CohereForCausalLM",
    "cohere2": "Cohere2ForCausalLM",
    "cohere2_vision": "Cohere2VisionForConditionalGeneration",
    "dbrx": "DbrxForCausalLM",
    "deepseek": "DeepseekForCausalLM",
    "dots1": "Dots1ForCausalLM",
    "ernie4_5": "Ernie4_5_ForCausalLM",
    "ernie4_5_moe": "Ernie4_5_MoeForCausalLM",
    "exaone": "ExaoneForCausalLM",
    "falcon": "FalconForCausalLM",
    "flex_olmo": "FlexOlmoForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3": "Gemma3ForConditionalGeneration",
    "gemma3_text": "Gemma3ForCausalLM",
    "gemma4": "Gemma4ForConditionalGeneration",
    "gemma4_text": "Gemma4ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "gpt_bigcode": "GPTBigCodeForCausalLM",
    "gptj": "GPTJForCausalLM",
    "granite": "GraniteForCausalLM",
    "granitemoe": "GraniteMoeForCausalLM",
    "granitemoehybrid": "GraniteMoeHybridForCausalLM",
    "granitemoeshared": "GraniteMoeSharedForCausalLM",
    "hunyuan_v1_dense": "HunYuanDenseV1ForCausalLM",
    "hunyuan_v1_moe": "HunYuanMoEV1ForCausalLM",
    "idefics3": "Idefics3ForConditionalGeneration",
    "internlm": "InternLMForCausalLM",
    "internlm2": "InternLM2ForCausalLM",
    "internvl_chat": "InternVLChatModel",
    "kimi_vl": "KimiVLForConditionalGeneration",
    "llama4": "Llama4ForConditionalGeneration",
    "mimo": "MiMoForCausalLM",
    "minicpm": "MiniCPMForCausalLM",
    "minicpm3": "MiniCPM3ForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "mpt": "MPTForCausalLM",
    "olmo": "OlmoForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "olmo3": "Olmo3ForCausalLM",
    "olmoe": "OlmoeForCausalLM",
    "persimmon": "PersimmonForCausalLM",
    "phi": "PhiForCausalLM",
    "phimoe": "PhiMoEForCausalLM",
    "qwen": "QWenLMHeadModel",
    "qwen2_audio": "Qwen2AudioForConditionalGeneration",
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen3_next": "Qwen3NextForCausalLM",
    "qwen3_omni_moe": "Qwen3OmniMoeForConditionalGeneration",
    "RefinedWeb": "RWForCausalLM",
    "RefinedWebModel": "RWForCausalLM",
    "smolvlm": "SmolVLMForConditionalGeneration",
    "solar_open": "SolarOpenForCausalLM",
    "stablelm": "StableLmForCausalLM",
    "stablelm_epoch": "StableLMEpochForCausalLM",
    "starcoder2": "Starcoder2ForCausalLM",
    "step3p7": "Step3p7ForConditionalGeneration",
    "voxtral": "VoxtralForConditionalGeneration",
}
"""``model_type`` -> the class in its published files, for classes that some engine treats specially."""


def read_architecture(outer: Fields) -> str:
    """Return the class that a file names, otherwise the usual one of its ``model_type``; "" if neither is known."""
    named = next((name for name in outer.array("architectures") or [] if isinstance(name, str)), "")
    return named or USUAL_CLASSES.get(outer.text("model_type"), "")
