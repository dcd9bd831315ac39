"""Storage format of each part of a model, from the quantisation objects in checkpoints (:data:`METHODS`)."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from energylens.predictor.huggingface.fields import Fields
from energylens.predictor.model.architecture import (
    ActivationFormat,
    DenseFfn,
    FeedForward,
    GatedDeltaNet,
    Mamba2,
    Mixer,
    MoeFfn,
    Quantization,
    Scaling,
)
from energylens.records import dataclass

PLAIN = Quantization()
_SPARSE_FORMATS = ("marlin-24", "sparse-24-bitmask", "sparse-bitmask")
METHODS = "fp8, fbgemm_fp8, compressed-tensors, modelopt, mxfp4, gptq, awq"

ALGORITHMS: dict[str, Quantization] = {
    "FP8": Quantization("fp8", "fp8", "per_tensor"),
    "FP8_PER_CHANNEL_PER_TOKEN": Quantization("fp8", "fp8", "per_channel"),
    "FP8_PB_WO": Quantization("fp8", "fp8", "block"),
    "FP8_BLOCK_SCALES": Quantization("fp8", "fp8", "block"),
    "MXFP8": Quantization("fp8", "mxfp8", "group"),
    "NVFP4": Quantization("nvfp4", "nvfp4", "group"),
    "W4A16_NVFP4": Quantization("nvfp4", "bfloat16", "group"),
    "W4A8_NVFP4_FP8": Quantization("nvfp4", "fp8", "group"),
    "MXFP4": Quantization("mxfp4", "bfloat16", "group"),
    "W4A8_MXFP4_FP8": Quantization("mxfp4", "fp8", "group"),
    "W4A16_AWQ": Quantization("int4", "bfloat16", "group"),
    "W4A16": Quantization("int4", "bfloat16", "group"),
    "W4A8_AWQ": Quantization("int4", "fp8", "group"),
    "INT8_SQ": Quantization("int8", "int8", "per_channel"),
    "W8A8_SQ_PER_CHANNEL": Quantization("int8", "int8", "per_channel"),
    "W8A16": Quantization("int8", "bfloat16", "per_channel"),
}
"""NVIDIA ModelOpt's names for its algorithms (``quant_algo``)."""


@dataclass(frozen=True)
class PartQuantization:
    """Storage format of each part; the fields correspond to the fields of :class:`ModelSpec` with the same names."""

    attention: Quantization = PLAIN
    ffn: Quantization = PLAIN
    experts: Quantization = PLAIN
    head: Quantization = PLAIN
    kv_bytes: float = 2.0
    method: str = ""
    """The checkpoint's quantisation method, in the engines' terms."""


Assign = Callable[[str], Quantization | None]
"""Function from a module name to its quantisation; None for a module that is not quantised."""


def read_quantization(
    outer: Fields, fields: Fields, layers: Sequence[tuple[Mixer | None, FeedForward | None]], family: str = ""
) -> PartQuantization:
    """Return the storage format of each part of a model with these layers.

    Raises:
        UnsupportedConfigError: An unknown method, algorithm or bit width.
    """
    keys = ("quantization_config", "compression_config", "quantization")
    quant = outer.child(*keys) or fields.child(*keys)
    if quant is None:
        return PartQuantization()
    _refuse_sparsity(quant)
    assign = _assignment(quant)
    method = _method(quant)
    # In checkpoints with NVIDIA's NVFP4 experts and DeepSeek's FP8, the plain ignore list belongs to the experts'
    # format.
    ignore_names = ("ignore",) if quant.get("moe_quant_algo") is None else ()
    ignore = _Patterns(quant, "modules_to_not_convert", "ignored_layers", "exclude_modules", *ignore_names)

    def of(part: str) -> Quantization:
        return _majority(_names(part, layers, family), assign, ignore)

    experts = of("experts")
    override = _expert_override(fields, quant)
    if override is not None and any(isinstance(ffn, MoeFfn) for _, ffn in layers):
        experts = override
    if method == "mxfp4":
        # Published MXFP4 checkpoints quantise only routed experts, whatever their list of exceptions says.
        return PartQuantization(experts=experts, kv_bytes=_kv_bytes(quant), method=method)
    head = assign("lm_head") if _names_modules(quant, method) else None
    return PartQuantization(of("attention"), of("ffn"), experts, head or PLAIN, _kv_bytes(quant), method)


def _refuse_sparsity(quant: Fields) -> None:
    """Refuse 2:4 sparse weights, which vLLM 0.33 and SGLang 0.5.23 no longer serve."""
    allowed = "dense (engines no longer serve sparse weights)"
    if quant.text("format") in _SPARSE_FORMATS:
        raise quant.error("format", allowed, quant.text("format"))
    sparsity = quant.child("sparsity_config")
    if sparsity is not None and sparsity.text("format", default="dense") != "dense":
        raise sparsity.error("format", allowed, sparsity.text("format"))


def _names_modules(quant: Fields, method: str) -> bool:
    """Return whether quantised modules are listed; only then can the output head be among them."""
    if method == "modelopt" and quant.get("quantized_layers") is not None:
        return True
    groups = quant.child("config_groups")
    if groups is None or quant.text("quant_algo").upper() not in ("", "MIXED_PRECISION"):
        return False
    children = [groups.child(key) for key in groups.values]
    return all("Linear" not in (group.array("targets") or ["Linear"]) for group in children if group is not None)


def _method(quant: Fields) -> str:
    method = quant.text("quant_method").lower()
    if not method and (quant.get("quant_algo") or quant.get("producer")):
        return "modelopt"
    if not method and quant.get("config_groups") is not None:
        return "compressed-tensors"
    if method.startswith("modelopt"):
        return "modelopt"
    return {"gptq_marlin": "gptq", "auto_gptq": "gptq", "awq_marlin": "awq", "auto_awq": "awq"}.get(method, method)


def _assignment(quant: Fields) -> Assign:
    method = _method(quant)
    if quant.get("quantized_layers") is not None and method == "modelopt":
        return _listed_assignment(quant)
    if method in ("compressed-tensors", "modelopt"):
        # ModelOpt names the algorithm and repeats it as groups in config.json.
        algorithm = quant.text("quant_algo").upper()
        if algorithm and algorithm != "MIXED_PRECISION":
            return _everywhere(_algorithm(quant, algorithm))
        return _group_assignment(quant)
    if method == "fp8":
        block = _block(quant, "weight_block_size")
        if block is None:
            return _everywhere(Quantization("fp8", "fp8", "per_tensor"))
        return _everywhere(Quantization("fp8", "fp8", "block", block=_unless_usual(block)))
    if method == "fbgemm_fp8":
        return _everywhere(Quantization("fp8", "fp8", "per_channel"))
    if method == "mxfp4":
        return _everywhere(ALGORITHMS["MXFP4"])
    if method in ("gptq", "awq"):
        bits = quant.integer("bits", "w_bit", default=4)
        if bits not in (4, 8):
            raise quant.error("bits", "4 or 8", bits)
        size = quant.optional_integer("group_size", "q_group_size", low=-1)
        return _everywhere(_int4(size, "bfloat16") if bits == 4 else _int8(size))
    raise quant.error("quant_method", METHODS, method or None)


def _everywhere(value: Quantization) -> Assign:
    return lambda _module: value


def _algorithm(quant: Fields, name: object, field: str = "quant_algo") -> Quantization:
    if not isinstance(name, str) or name.upper() not in ALGORITHMS:
        raise quant.error(field, ", ".join(ALGORITHMS), name)
    return ALGORITHMS[name.upper()]


def _listed_assignment(quant: Fields) -> Assign:
    listed = quant.child("quantized_layers")
    if listed is None:
        raise quant.error("quantized_layers", "an object")
    by_module: dict[str, Quantization] = {}
    for module in listed.values:
        entry = listed.child(module)
        if entry is not None:
            by_module[str(module)] = _algorithm(entry, entry.get("quant_algo"))

    def assign(module: str) -> Quantization | None:
        while module:
            if module in by_module:
                return by_module[module]
            module = module.rpartition(".")[0]
        return None

    return assign


def _group_assignment(quant: Fields) -> Assign:
    groups = quant.child("config_groups")
    if groups is None:
        raise quant.error("config_groups" if _method(quant) != "modelopt" else "quant_algo", ", ".join(ALGORITHMS))
    rules: list[tuple[_Patterns | None, Quantization]] = []
    for key in groups.values:
        group = groups.child(key)
        if group is None:
            continue
        targets = group.array("targets") or ["Linear"]
        patterns = None if "Linear" in targets else _Patterns(group, "targets")
        rules.append((patterns, _group_quantization(group)))
    if not rules:
        raise quant.error("config_groups", "at least one group with weights")

    def assign(module: str) -> Quantization | None:
        return next((value for patterns, value in rules if patterns is None or patterns.match(module)), None)

    return assign


def _group_quantization(group: Fields) -> Quantization:
    weights = group.child("weights")
    if weights is None:
        raise group.error("weights", "an object with num_bits and type")
    bits, kind = weights.integer("num_bits", high=16), weights.text("type", default="int")
    size = weights.optional_integer("group_size", low=-1)
    inputs = group.child("input_activations")
    input_bits = inputs.integer("num_bits", high=16) if inputs is not None else 16
    scaling: Scaling = "group"
    strategy = weights.text("strategy")
    if strategy in ("tensor", "") and size in (None, -1):
        scaling = "per_tensor"
    elif strategy == "channel":
        scaling = "per_channel"
    elif strategy == "block":
        scaling = "block"
    if bits == 8 and kind == "float":
        block = _block(weights, "block_structure") if scaling == "block" else None
        activation: ActivationFormat = "fp8" if input_bits == 8 else "bfloat16"
        return Quantization("fp8", activation, scaling, block=_unless_usual(block))
    if bits == 8 and kind == "int":
        kept = _unless_128(size) if scaling == "group" else None
        return Quantization("int8", "int8" if input_bits == 8 else "bfloat16", scaling, kept)
    if bits == 4 and kind == "int":
        return _int4(-1 if strategy == "channel" else size, "fp8" if input_bits == 8 else "bfloat16")
    if bits == 4 and kind == "float":
        microscaled = size == 32
        if input_bits == 4:
            return Quantization("mxfp4" if microscaled else "nvfp4", "mxfp8" if microscaled else "nvfp4", "group")
        return Quantization("mxfp4" if microscaled else "nvfp4", "fp8" if input_bits == 8 else "bfloat16", "group")
    raise weights.error("num_bits and type", "8 or 4 bits of type float or int", f"{bits} {kind}")


def _int4(group_size: int | None, activation: ActivationFormat) -> Quantization:
    if group_size == -1:
        return Quantization("int4", activation, "per_channel")
    return Quantization("int4", activation, "group", _unless_128(group_size))


def _int8(group_size: int | None) -> Quantization:
    if group_size == -1:
        return Quantization("int8", "bfloat16", "per_channel")
    return Quantization("int8", "bfloat16", "group", _unless_128(group_size))


def _unless_128(group_size: int | None) -> int | None:
    return None if group_size is None or group_size < 1 or group_size == 128 else group_size


def _block(holder: Fields, name: str) -> tuple[int, int] | None:
    """Return the output and input features of a block; None if the field is absent."""
    sizes = holder.array(name)
    if sizes is None:
        return None
    if len(sizes) != 2 or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
        raise holder.error(name, "two whole numbers above 0, such as [128, 128]", sizes)
    return sizes[0], sizes[1]


def _unless_usual(block: tuple[int, int] | None) -> tuple[int, int] | None:
    return None if block == (128, 128) else block


def _expert_override(fields: Fields, quant: Fields) -> Quantization | None:
    """Return the FP4 format of DeepSeek V4's experts, which the quantisation object (FP8) does not mention."""
    algorithm = quant.get("moe_quant_algo")
    if algorithm is not None:
        return _algorithm(quant, algorithm, "moe_quant_algo")
    dtype = fields.text("expert_dtype")
    if dtype == "fp4":
        return ALGORITHMS["W4A8_MXFP4_FP8"]
    if dtype not in ("", "fp8", "bfloat16"):
        raise fields.error("expert_dtype", "fp4, fp8 or bfloat16", dtype)
    return None


def _kv_bytes(quant: Fields) -> float:
    scheme = quant.get("kv_cache_scheme", "kv_cache_quant_algo")
    if scheme is None:
        return 2.0
    if isinstance(scheme, str):
        if scheme in ("static", "dynamic") and quant.text("quant_method") == "fp8":
            # AutoFP8 only says that the file has scales; an FP8 cache needs --kv-cache-dtype (vLLM,
            # quantization/fp8.py).
            return 2.0
        if scheme.upper() in ("FP8", "INT8"):
            return 1.0
        if scheme.upper() == "NVFP4":
            return 0.5 + 1 / 16
        raise quant.error("kv_cache_scheme", "FP8, INT8 or NVFP4", scheme)
    nested = quant.child("kv_cache_scheme", "kv_cache_quant_algo")
    bits = nested.integer("num_bits", high=16) if nested is not None else 16
    if bits not in (8, 16):
        raise quant.error("kv_cache_scheme.num_bits", "8 or 16", bits)
    return bits / 8


class _Patterns:
    """A list of module names: plain (any run of name components), with ``*``, or ``re:`` and a regular expression."""

    def __init__(self, holder: Fields, *names: str) -> None:
        self.plain: set[str] = set()
        self.regexes: list[re.Pattern[str]] = []
        wildcards = []
        for entry in holder.array(*names) or []:
            if not isinstance(entry, str):
                raise holder.error(names[0], "a list of module names", entry)
            if entry.startswith("re:"):
                try:
                    self.regexes.append(re.compile(entry[3:]))
                except (re.error, RecursionError, OverflowError):
                    raise holder.error(names[0], "valid regular expressions after re:", entry) from None
            elif "*" in entry:
                wildcards.append(fnmatch.translate(entry))
            else:
                self.plain.add(entry)
        if wildcards:
            self.regexes.append(re.compile("|".join(wildcards)))

    def match(self, module: str) -> bool:
        if not self.plain:
            return any(regex.match(module) for regex in self.regexes)
        parts = module.split(".")
        runs = {".".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1)}
        return not runs.isdisjoint(self.plain) or any(regex.match(module) for regex in self.regexes)


_PREFIXES = (
    "model.layers.{}.",
    "model.language_model.layers.{}.",
    "language_model.model.layers.{}.",
    "backbone.layers.{}.",
    "layers.{}.",
)
_SELF_ATTENTION = ("self_attn.q_proj", "self_attn.o_proj", "attn.wq_b", "mixer.q_proj")
_LINEAR_ATTENTION = ("linear_attn.in_proj_qkv", "linear_attn.in_proj_qkvz", "self_attn.o_proj")
_MAMBA = ("mixer.in_proj",)
_DENSE = ("mlp.down_proj", "feed_forward.down_proj", "mixer.down_proj", "ffn.w2")
_SHARED = (
    "mlp.shared_experts.down_proj",
    "mlp.shared_expert.down_proj",
    "block_sparse_moe.shared_experts.down_proj",
    "feed_forward.shared_expert.down_proj",
    "mixer.shared_experts.down_proj",
    "ffn.shared_experts.w2",
)
_EXPERTS = (
    "mlp.experts.0.down_proj",
    "block_sparse_moe.experts.0.w2",
    "feed_forward.experts.0.down_proj",
    "mixer.experts.0.down_proj",
    "ffn.experts.0.w2",
    "moe.experts.0.down_proj",
)


def _names(part: str, layers: Sequence[tuple[Mixer | None, FeedForward | None]], family: str) -> Iterable[list[str]]:
    """Yield, for each layer that has the part, the names of its main matrix in checkpoints."""
    for number, (mixer, ffn) in enumerate(layers):
        suffixes: tuple[str, ...] = ()
        if part == "attention":
            if isinstance(mixer, GatedDeltaNet):
                suffixes = _LINEAR_ATTENTION
            elif isinstance(mixer, Mamba2):
                suffixes = _MAMBA
            elif mixer is not None:
                suffixes = _SELF_ATTENTION
        elif part == "experts":
            suffixes = _EXPERTS if isinstance(ffn, MoeFfn) else ()
        elif isinstance(ffn, DenseFfn):
            suffixes = _DENSE
        elif isinstance(ffn, MoeFfn) and ffn.shared_intermediate:
            suffixes = _SHARED
        if suffixes and family == "gemma4" and part != "attention":
            # In Gemma 4 the experts are beside the dense network, not inside it.
            suffixes = ("experts.0.down_proj", "moe.experts.0.down_proj") if part == "experts" else _DENSE
        if suffixes:
            yield [prefix.format(number) + suffix for prefix in _PREFIXES for suffix in suffixes]


def _majority(names: Iterable[list[str]], assign: Assign, ignore: _Patterns) -> Quantization:
    # A part counts as quantised if most of its layers are.
    votes: Counter[Quantization] = Counter()
    for spellings in names:
        if any(ignore.match(name) for name in spellings):
            votes[PLAIN] += 1
        else:
            votes[next((q for q in map(assign, spellings) if q is not None), PLAIN)] += 1
    return votes.most_common(1)[0][0] if votes else PLAIN
