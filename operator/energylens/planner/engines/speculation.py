"""Speculative decoding: the statement of the spec, the configuration in the engine's arguments, and their conflicts.

vLLM 0.33 (config/speculative.py) takes one JSON, ``--speculative-config``; SGLang 0.5.23 has options of its own
(arg_groups/fields/speculative.py), where a chain of N steps verifies N + 1 tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

from energylens.api.llmdeployment import LLMDeploymentSpec, SpeculationMethod, WorkloadSpec
from energylens.planner.engines.arguments import Arguments
from energylens.planner.engines.settings import EngineSettings
from energylens.predictor.types import Speculation
from energylens.records import dataclass

DEFAULT_METHOD: SpeculationMethod = "EAGLE"
"""Assumed method if neither the spec nor the arguments name one."""
_OPTIONS = {
    "VLLM": ("--speculative-config", "--spec-method", "--spec-model", "--spec-tokens"),
    "SGLang": ("--speculative-algorithm", "--speculative-draft-model-path"),
}
"""Options that enable speculative decoding."""
_NO_PREFIX_CACHE = {"VLLM": "--enable-prefix-caching", "SGLang": "--disable-radix-cache"}
_SGLANG: dict[str, SpeculationMethod] = {
    "EAGLE": "EAGLE",
    "EAGLE3": "EAGLE",
    "NEXTN": "MTP",
    "STANDALONE": "DraftModel",
    "NGRAM": "NGram",
}


@dataclass(frozen=True)
class Told:
    """Speculative decoding as the engine's arguments configure it."""

    written: str
    """The argument as the user wrote it."""
    method: SpeculationMethod | None
    """None for a method that is unknown here."""
    draft_tokens: int | None
    """Length of a chain of drafts, tokens per step; None if the arguments leave it to the engine."""


def told(settings: EngineSettings) -> Told | None:
    """Return the speculative decoding that the arguments configure; None without any."""
    given, names = settings.arguments, {g.name for g in settings.arguments.given}
    option = next((name for name in _OPTIONS[settings.engine] if name in names), None)
    if option is None:
        return None
    method, tokens = (_vllm if settings.engine == "VLLM" else _sglang)(given)
    return Told(given.written(option), method, tokens)


def speculation_of(spec: LLMDeploymentSpec) -> Speculation | None:
    """Return ``spec.workload.speculative``, with the method from the arguments if the spec names none."""
    asked = spec.workload.speculative
    if asked is None:
        return None
    found = told(EngineSettings.of(spec.engine))
    method = asked.method or (found.method if found is not None else None) or DEFAULT_METHOD
    millions = asked.draft_model_million_parameters
    if method == "DraftModel" and millions is None:
        method = DEFAULT_METHOD
    parameters = None if millions is None or method != "DraftModel" else 1e6 * millions
    return Speculation(method, asked.draft_tokens, asked.acceptance_percent / 100.0, parameters)


def disagreements(workload: WorkloadSpec, settings: EngineSettings) -> Iterator[str]:
    """Yield the contradictions between a spec's load and the engine's arguments, one sentence each."""
    asked, found = workload.speculative, told(settings)
    where, arguments = "spec.workload.speculative", "spec.engine.extraArgs"
    if asked is not None and found is None:
        yield (
            f"the figures assume {asked.draft_tokens} draft tokens ({where}), but {arguments} does not enable "
            f"speculative decoding in {settings.name}"
        )
    if asked is None and found is not None:
        yield f"{found.written} enables speculative decoding, which the figures leave out; set {where} to include it"
    if asked is not None and found is not None:
        if found.draft_tokens not in (None, asked.draft_tokens):
            yield f"{where}.draftTokens={asked.draft_tokens}, but {found.written} drafts {found.draft_tokens}"
        if asked.method is not None and found.method not in (None, asked.method):
            yield f"{where}.method={asked.method}, but {found.written} selects {found.method}"
    by_model = asked is not None and "DraftModel" in (asked.method, found.method if found is not None else None)
    if asked is not None and by_model and asked.draft_model_million_parameters is None:
        size = f"{where}.draftModelMillionParameters"
        yield f"the size of the draft model is unknown and planned as an EAGLE head; set {size}"
    hits, option = max(part.prefix_cache_hit_percent for part in workload.shapes), _NO_PREFIX_CACHE[settings.engine]
    if hits and settings.arguments.switch(option) is (settings.engine == "SGLang"):
        written = settings.arguments.written(option)
        field = (
            "spec.workload.classes: prefixCacheHitPercent"
            if workload.classes
            else "spec.workload.prefixCacheHitPercent"
        )
        yield f"{field}={hits}, but {written} turns the prefix cache off"


def _vllm(given: Arguments) -> tuple[SpeculationMethod | None, int | None]:
    config = given.parts.get("--speculative-config", {})
    name = str(config.get("method") or given.value("--spec-method") or "").lower()
    tokens = _whole(config.get("num_speculative_tokens") or given.value("--spec-tokens"))
    if not name and (config.get("model") or given.value("--spec-model")):
        # The engine inspects the draft model; here its name decides whether it is a head.
        model = str(config.get("model") or given.value("--spec-model")).lower()
        name = "eagle" if "eagle" in model else ""
    if name.startswith(("ngram", "suffix", "[ngram]")):
        return "NGram", tokens
    if name.startswith("eagle"):
        return "EAGLE", tokens
    if name.endswith("mtp"):
        return "MTP", tokens
    return ("DraftModel" if name == "draft_model" else None), tokens


def _sglang(given: Arguments) -> tuple[SpeculationMethod | None, int | None]:
    method = _SGLANG.get(str(given.value("--speculative-algorithm") or "").upper())
    steps, verified = (_whole(given.value(f"--speculative-num-{name}")) for name in ("steps", "draft-tokens"))
    if steps is not None:
        return method, steps
    return method, None if verified is None else max(verified - 1, 1)


def _whole(value: object) -> int | None:
    text = str(value)
    return int(text) if text.isdecimal() and int(text) > 0 else None
