"""Which model classes an engine serves, and which of them support every kind of parallelism.

Engines choose a class by ``architectures`` of config.json. The tables were read in the packages: vLLM 0.33.0
(model_executor/models/registry.py and the classes it names), SGLang 0.5.23 (models/, ``EntryClass``) and, for classes
that an engine leaves to the transformers library, transformers 5.24.0.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from energylens.planner.engines.settings import EngineSettings
from energylens.planner.engines.versions import NAMES, Version
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import BoolArray, Layouts

_LAST_VERSION: dict[str, Version] = {
    **dict.fromkeys(
        (
            "BaiChuanForCausalLM",
            "BaichuanForCausalLM",
            "BambaForCausalLM",
            "InternLMForCausalLM",
            "QWenLMHeadModel",
            "XverseForCausalLM",
        ),
        (0, 23, 0),
    ),
    **dict.fromkeys(("AquilaForCausalLM", "AquilaModel", "Grok1ForCausalLM", "Grok1ModelForCausalLM"), (0, 24, 0)),
    **dict.fromkeys(("JAISLMHeadModel",), (0, 22, 0)),
    **dict.fromkeys(("TeleChatForCausalLM",), (0, 25, 0)),
    **dict.fromkeys(("OuroForCausalLM", "Plamo2ForCausalLM"), (0, 26, 0)),
    **dict.fromkeys(
        ("ArcticForCausalLM", "MPTForCausalLM", "MptForCausalLM", "RWForCausalLM", "StableLMEpochForCausalLM"),
        (0, 28, 0),
    ),
}
"""Class that vLLM no longer serves -> the last version that serves it. Classes that still run through the transformers
library are absent (``_PREVIOUSLY_SUPPORTED_MODELS``)."""
_NOT_OF_SGLANG = frozenset(
    {
        "BambaForCausalLM",
        "BloomForCausalLM",
        "FalconForCausalLM",
        "InternLMForCausalLM",
        "JAISLMHeadModel",
        "MPTForCausalLM",
        "MptForCausalLM",
        "RWForCausalLM",
    }
)
"""Classes that SGLang does not implement, and whose transformers code has no replaceable attention
(model_loader/utils.py)."""

_NO_TEXT = (
    "EmbeddingModel",
    "ForMaskedLM",
    "ForRewardModel",
    "ForSequenceClassification",
    "ForTokenClassification",
    "RewardModel",
)
"""Suffixes of classes whose head generates no text; engines serve them without the endpoints for text."""

_NO_STAGES = {
    "VLLM": frozenset(
        """
AriaForConditionalGeneration Gemma3nForCausalLM Gemma3nForConditionalGeneration IQuestLoopCoderForCausalLM
Idefics3ForConditionalGeneration Mamba2ForCausalLM NemotronH_Nano_VL_V2 PaddleOCRVLForConditionalGeneration
Phi4MMForCausalLM SmolVLMForConditionalGeneration Zamba2ForCausalLM
""".split()  # noqa: SIM905
    ),
    "SGLang": frozenset(
        """
AfmoeForCausalLM BaiChuanForCausalLM BaichuanForCausalLM ChatGLMModel Cohere2ForCausalLM Cohere2MoeForCausalLM
Cohere2VisionForConditionalGeneration CohereForCausalLM DbrxForCausalLM DeepseekForCausalLM DeepseekVL2ForCausalLM
Ernie4_5_ForCausalLM Ernie4_5_MoeForCausalLM ExaoneForCausalLM FalconH1ForCausalLM FalconMambaForCausalLM
GPT2LMHeadModel GPTBigCodeForCausalLM GPTJForCausalLM Gemma2ForCausalLM Gemma3ForCausalLM
Gemma3ForConditionalGeneration Gemma3nForCausalLM Gemma3nForConditionalGeneration GemmaForCausalLM
GraniteForCausalLM GraniteMoeForCausalLM GraniteMoeSharedForCausalLM Grok1ForCausalLM Grok1ModelForCausalLM
HunYuanDenseV1ForCausalLM HunYuanMoEV1ForCausalLM InternLM2ForCausalLM InternS1ForConditionalGeneration
InternVLChatModel KimiVLForConditionalGeneration Lfm2ForCausalLM Lfm2MoeForCausalLM Llama4ForConditionalGeneration
LongcatFlashForCausalLM Mamba2ForCausalLM MambaForCausalLM MiMoForCausalLM MiniCPM3ForCausalLM MiniCPMForCausalLM
MllamaForConditionalGeneration NemotronH_Nano_VL_V2 Olmo2ForCausalLM Olmo3ForCausalLM OlmoForCausalLM
OlmoeForCausalLM OrionForCausalLM PaddleOCRVLForConditionalGeneration PersimmonForCausalLM Phi3SmallForCausalLM
Phi4MMForCausalLM PhiForCausalLM PhiMoEForCausalLM PixtralForConditionalGeneration QWenLMHeadModel
Qwen2AudioForConditionalGeneration Qwen2VLForConditionalGeneration Qwen3NextForCausalLM
Qwen3OmniMoeForConditionalGeneration StableLmForCausalLM Starcoder2ForCausalLM Step3VLForConditionalGeneration
Step3p7ForConditionalGeneration VoxtralForConditionalGeneration XverseForCausalLM
""".split()  # noqa: SIM905
    ),
}
"""Classes without pipeline parallelism: vLLM requires ``SupportsPP`` (config/model.py; vllm-project/vllm#16231,
#33685), SGLang ``pp_proxy_tensors`` among the arguments of ``forward`` (model_executor/model_runner.py)."""

_NO_ATTENTION_RANKS = frozenset(
    """
AfmoeForCausalLM DbrxForCausalLM DeepseekForCausalLM Dots1ForCausalLM Ernie4_5_MoeForCausalLM FlexOlmoForCausalLM
Gemma4ForCausalLM Gemma4ForConditionalGeneration GraniteMoeForCausalLM GraniteMoeHybridForCausalLM
GraniteMoeSharedForCausalLM HunYuanMoEV1ForCausalLM MixtralForCausalLM OlmoeForCausalLM SolarOpenForCausalLM
""".split()  # noqa: SIM905
)
"""Mixture-of-experts classes whose attention SGLang shards over all GPUs (``tp_size``, never ``attn_tp_size``), so that
data-parallel attention would mix the requests of its ranks."""
_WHOLE_ATTENTION_RANKS = frozenset({"PhiMoEForCausalLM"})
"""Classes whose data-parallel attention supports only ranks of one GPU (models/phimoe.py)."""


def unserved(model: ModelSpec, settings: EngineSettings) -> str:
    """Return why an engine does not serve a model's class; "" if it does, or if nothing is known about the class."""
    name = model.architecture
    if name.endswith(_NO_TEXT):
        return f"{name} generates no text: its head classifies or embeds; serve a checkpoint with a language-model head"
    if settings.engine == "SGLang" and name in _NOT_OF_SGLANG:
        return f"{settings.name} does not serve {name}; set spec.engine.type to VLLM"
    last = _LAST_VERSION.get(name) if settings.engine == "VLLM" else None
    if last is None or settings.version[:2] <= last[:2]:
        return ""
    newest = ".".join(map(str, last))
    return (
        f"{settings.name} no longer serves {name}; {NAMES[settings.engine]} {newest} is the last version that "
        "does: set its image in spec.engine.image"
    )


def class_rules(model: ModelSpec, layouts: Layouts, settings: EngineSettings) -> Iterator[tuple[BoolArray, str]]:
    """Yield the layouts that a model's class does not support, shape (n,), each with the reason."""
    name, engine = model.architecture, settings.engine
    if name in _NO_STAGES[engine]:
        yield (
            np.asarray(layouts.pipeline_parallel > 1),
            f"{settings.name} has no pipeline parallelism for {name}; use pipelineParallel=1",
        )
    if engine != "SGLang":
        return
    apart = np.asarray(layouts.data_parallel > 1)
    if name in _NO_ATTENTION_RANKS:
        yield apart, f"{settings.name} has no data-parallel attention for {name}; use dataParallel=1"
    if name in _WHOLE_ATTENTION_RANKS:
        yield (
            apart & np.asarray(layouts.tensor_parallel > 1),
            f"{settings.name} supports data-parallel attention for {name} only with one GPU per rank; use "
            "tensorParallel=1",
        )
