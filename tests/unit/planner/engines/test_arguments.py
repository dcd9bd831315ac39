from __future__ import annotations

import pytest

from energylens.api.llmdeployment import Engine
from energylens.planner.engines import EngineSettings, SettingError
from energylens.planner.engines.arguments import read_arguments
from energylens.planner.engines.options import find

VLLM, SGLANG = (0, 33, 0), (0, 5, 23)


def settings(*arguments: str, engine: str = "VLLM", **fields: object) -> EngineSettings:
    return EngineSettings.of(Engine.model_validate({"type": engine, "extraArgs": list(arguments)} | fields))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--gpu-memory-utilization=0.5",),
        ("--gpu-memory-utilization", "0.5"),
        ("--gpu_memory_utilization", "0.5"),
        ("--gpu-mem=0.5",),
        ("--device-memory-utilization=.5",),
        ("--enforce-eager", "--gpu-memory-utilization", "0.5", "--seed=1"),
        ("--gpu-memory-utilization=0.9", "--gpu-memory-utilization=0.5"),
    ],
)
def test_every_spelling_of_an_option_is_read(arguments: tuple[str, ...]) -> None:
    found = settings(*arguments)
    found.check()
    assert found.memory_utilization == 0.5


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (("--max-num-batched-tokens=16k",), "step_tokens", 16_000),
        (("--max_num_batched_tokens", "2K"), "step_tokens", 2048),
        (("--max-model-len=25.6k",), "context_tokens", 25_600),
        (("--max-model-len=2m",), "context_tokens", 2_000_000),
        (("--kv-cache-memory-bytes=3g",), "kv_cache_bytes", 3e9),
        (("--kv-cache-memory-bytes=0.5T",), "kv_cache_bytes", 2.0**39),
        (("--max-model-len=auto",), "context_tokens", None),
        (("--max-model-len", "-1"), "context_tokens", None),
        (("--kv-cache-memory-bytes=20G",), "kv_cache_bytes", 20 * 2.0**30),
        (("--kv-cache-dtype=fp8_e5m2",), "kv_bytes_per_element", 1.0),
        (("--kv-cache-dtype", "bfloat16"), "kv_bytes_per_element", 2.0),
        (("--kv-cache-dtype=nvfp4",), "kv_bytes_per_element", 0.5625),
        (("--kv-cache-dtype=int8_per_token_head",), "kv_bytes_per_element", 1.0),
        (("--kv-cache-dtype=auto",), "kv_bytes_per_element", None),
    ],
)
def test_limits_are_read_as_vllm_reads_them(arguments: tuple[str, ...], name: str, value: float | None) -> None:
    assert getattr(settings(*arguments), name) == value


def test_sglang_reads_no_underscores() -> None:
    with pytest.raises(
        SettingError, match=r"'--context_length=8192' is not an option of SGLang .*did you mean --context-length"
    ):
        settings("--context_length=8192", engine="SGLang").check()


def test_every_stray_argument_is_named_and_those_after_it_are_read() -> None:
    found = read_arguments(["one", "--gpu-memory-utilization=0.5", "two"], "VLLM", VLLM)
    assert found.strays == ("one", "two")
    assert found.value("--gpu-memory-utilization") == "0.5"


def test_an_option_of_several_values_takes_all_and_others_take_one() -> None:
    found = read_arguments(["--served-model-name", "a", "b", "--seed", "1"], "VLLM", VLLM)
    assert (found.value("--served-model-name"), found.strays, found.problems) == ("a b", (), ())
    assert read_arguments(["--seed", "1", "2"], "VLLM", VLLM).strays == ("2",)


@pytest.mark.parametrize("arguments", [("-O3",), ("-O=3",), ("-O", "3"), ("--optimization-level=3",), ("-O0", "-O3")])
def test_the_short_form_of_the_optimization_level_is_read(arguments: tuple[str, ...]) -> None:
    found = settings(*arguments)
    found.check()
    assert found.arguments.value("--optimization-level") == "3"


@pytest.mark.parametrize("argument", ["-O", "-Ofast"])
def test_other_short_forms_of_the_optimization_level_are_refused(argument: str) -> None:
    with pytest.raises(SettingError, match=f"'{argument}' is not an option of vLLM"):
        settings(argument).check()
    with pytest.raises(SettingError, match="'-O3' is not an option of SGLang"):
        settings("-O3", engine="SGLang").check()


def test_sglang_has_names_of_its_own() -> None:
    found = settings(
        "--mem-fraction-static", "0.7", "--context-length=8192", "--chunked-prefill-size=-1", engine="SGLang"
    )
    found.check()
    assert (found.memory_utilization, found.context_tokens, found.step_tokens) == (0.7, 8192, None)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--gpu-memory-utilization=1.5", "'1.5'; allowed: a number above 0 and at most 1"),
        ("--gpu-memory-utilization=nan", "allowed: a number above 0 and at most 1"),
        ("--max-model-len=0", "allowed: a whole number above 0"),
        ("--max-model-len=8.5", "allowed: a whole number above 0"),
        ("--max-num-batched-tokens", "needs a value"),
        ("--enforce-eager=true", "takes no value; write --enforce-eager"),
        ("--seed 1", "is a single argument that contains a blank; write '--seed=1'"),
        ("loose", "belongs to no option"),
        ("--hf-overrides={", "is not valid JSON"),
        ("--swap-space=4", "no longer exists in vLLM 0.33.0"),
        ("--max-num-partial-prefills=2", "no longer exists in vLLM 0.33.0"),
        ("--enable-prefx-caching", "is not an option of vLLM 0.33.0; did you mean --enable-prefix-caching?"),
        ("--optimization-level=4", "--optimization-level is '4'; allowed: 0, 1, 2, 3"),
        ("--dtype=int8", "--dtype is 'int8'; allowed: auto, bfloat16, float, float16, float32, half"),
        ("--kv-cache-dtype=FP8", "--kv-cache-dtype is 'FP8'; allowed: auto, float16, bfloat16, fp8,"),
        ("--moe-back=cutlas", "--moe-backend is 'cutlas'; allowed: aiter,"),
        ("--block-size=0", "--block-size is '0'; allowed: a multiple of 16"),
        ("--block-size=24", "allowed: a multiple of 16"),
        ("--block_size=x", "allowed: a multiple of 16"),
        ("--enable-l", "may be --enable-layerwise-nvtx-tracing, --enable-log-deltas"),
    ],
)
def test_what_the_parser_refuses_is_refused(argument: str, message: str) -> None:
    found = settings(argument)
    with pytest.raises(SettingError, match=r".") as raised:
        found.check()
    assert message in str(raised.value)
    assert argument in str(raised.value)


def test_dotted_and_json_values_are_one() -> None:
    dotted = settings("--hf-overrides.rope_parameters.factor", "2", "--hf-overrides.rope_parameters.rope_type=linear")
    whole = settings("--hf-overrides", '{"rope_parameters": {"factor": 2, "rope_type": "linear"}}')
    assert dotted.arguments.parts == whole.arguments.parts
    assert dotted.arguments.parts["--hf-overrides"] == {"rope_parameters": {"factor": 2, "rope_type": "linear"}}


@pytest.mark.parametrize(
    ("argument", "version", "gone"),
    [
        ("--swap-space=4", (0, 17, 0), False),
        ("--swap-space=4", (0, 18, 0), True),
        ("--disable-log-requests", (0, 16, 0), False),
        ("--disable-log-requests", (0, 20, 1), True),
        ("--disable-log-requests", (0, 33, 0), False),
        ("--task=generate", (0, 12, 0), False),
        ("--task=generate", (0, 14, 0), True),
        ("--an-option-of-tomorrow", (0, 34, 0), False),
        ("--an-option-of-tomorrow", (0, 33, 1), True),
    ],
)
def test_options_go_by_version(argument: str, version: tuple[int, ...], gone: bool) -> None:
    assert bool(read_arguments([argument], "VLLM", version).problems) is gone


def test_an_argument_of_earlier_sglang_is_refused_where_its_parser_lacks_it() -> None:
    argument = "--collect-tokens-histogram"
    problems = read_arguments([argument], "SGLang", SGLANG).problems
    assert problems == (f"'{argument}' is not an option of SGLang 0.5.23; remove it",)
    assert not read_arguments([argument], "SGLang", (0, 5, 9)).problems


def test_sglang_does_not_take_underscores_for_dashes() -> None:
    problems = read_arguments(["--mem_fraction_static=0.8"], "SGLang", SGLANG).problems
    assert problems == (
        "'--mem_fraction_static=0.8' is not an option of SGLang 0.5.23; did you mean --mem-fraction-static?",
    )


@pytest.mark.parametrize(
    ("arguments", "on"),
    [
        (["--enable-prefix-caching"], True),
        (["--no-enable-prefix-caching"], False),
        (["--disable-prefix-caching"], False),
        (["--disable-prefix-caching", "--enable-prefix-caching"], True),
        ([], None),
    ],
)
def test_the_last_of_opposite_switches_counts(arguments: list[str], on: bool | None) -> None:
    assert read_arguments(arguments, "VLLM", VLLM).switch("--enable-prefix-caching") is on


def test_what_leaves_the_plan_as_it_is_changes_no_hash() -> None:
    assert settings("--seed=1", "--enforce-eager").planning_inputs() == {}
    assert settings("--gpu-memory-utilization=0.8").planning_inputs() == {"memoryUtilization": 0.8}


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (("-cc.mode=3",), "--compilation-config", "3"),
        (("-cc", '{"mode": 3}'), "--compilation-config", '{"mode": 3}'),
    ],
)
def test_dotted_short_options_of_vllm_are_read(arguments: tuple[str, ...], name: str, value: str) -> None:
    found = settings(*arguments)
    found.check()
    assert found.arguments.value(name) == value


def test_dotted_values_replace_json_as_in_vllm() -> None:
    """vLLM appends what it gathered from dotted arguments, and argparse keeps the last."""
    found = settings("--hf-overrides.b=2", "--hf-overrides", '{"a": 1}', "--hf-overrides.c.d=3")
    assert found.arguments.parts["--hf-overrides"] == {"b": 2, "c": {"d": 3}}
    twice = settings("--hf-overrides", '{"a": 1}', "--hf-overrides", '{"b": 2}')
    assert twice.arguments.parts["--hf-overrides"] == {"b": 2}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--page-size=0", "--page-size is '0'; allowed: a whole number above 0"),
        ("--cpu-offload-gb=abc", "allowed: a whole number"),
        ("--schedule-conservativeness=fast", "allowed: a number"),
        ("--random-seed=1.5", "allowed: a whole number"),
        ("--context-length=32Kb", "allowed: a whole number above 0 (1k and 1Ki too)"),
        ("--chunked-prefill-size=4k", "allowed: a whole number"),
        ("--page-size=1.5", "allowed: a whole number above 0"),
        ("--kv-cache-dtype=fp8", "--kv-cache-dtype is 'fp8'; allowed: auto, fp8_e5m2, fp8_e4m3,"),
        ("--attention-backend=flash", "allowed: triton, torch_native,"),
        ("--hf-overrides.a=1", "is not an option of SGLang 0.5.23"),
        ("--json-model-override-args.a=1", "is not an option of SGLang 0.5.23"),
    ],
)
def test_what_sglangs_parser_refuses_is_refused(argument: str, message: str) -> None:
    with pytest.raises(SettingError) as raised:
        settings(argument, engine="SGLang").check()
    assert message in str(raised.value)
    assert argument in str(raised.value)


@pytest.mark.parametrize(
    ("engine", "argument", "tokens"),
    [("VLLM", "--block-size=32", 32), ("VLLM", "--block_size=128", 128), ("SGLang", "--page-size=64", 64)],
)
def test_blocks_of_the_cache_are_read(engine: str, argument: str, tokens: int) -> None:
    assert settings(argument, engine=engine).block_tokens == tokens


def test_values_of_versions_that_were_not_read_are_the_engines_to_judge() -> None:
    assert read_arguments(["--dtype=int8", "-O3"], "VLLM", (0, 30, 0)).problems == ()


@pytest.mark.parametrize(
    ("argument", "tokens"), [("32k", 32_000), ("1Ki", 1024), ("25.6k", 25_600), ("4096", 4096), ("1M", 1_000_000)]
)
def test_sglang_takes_contexts_with_a_suffix(argument: str, tokens: int) -> None:
    """sglang/srt/utils/common.py, human_readable_int."""
    assert settings(f"--context-length={argument}", engine="SGLang").context_tokens == tokens


@pytest.mark.parametrize("text", ["auto", "-1"])
def test_a_context_that_follows_the_memory_needs_vllm_0_14(text: str) -> None:
    newer = EngineSettings.of(Engine(extra_args=(f"--max-model-len={text}",), image="vllm/vllm-openai:v0.14.0"))
    assert newer.context_tokens is None
    older = EngineSettings.of(Engine(extra_args=(f"--max-model-len={text}",), image="vllm/vllm-openai:v0.13.0"))
    with pytest.raises(SettingError, match=r"since vLLM 0\.14"):
        older.check()


@pytest.mark.parametrize(
    "argument", ["--seed=abc", "--cpu-offload-gb=10GB", "--max-loras=two", "--stream-interval=1.5", "-n=x"]
)
def test_vllm_takes_numbers_where_its_parser_does(argument: str) -> None:
    with pytest.raises(SettingError, match=r"allowed: a (whole )?number"):
        settings(argument).check()
    older = read_arguments((argument,), "VLLM", (0, 12, 0))
    assert older.problems == ()


def test_options_of_a_front_end_are_given_too_where_they_are_kept() -> None:
    args = ["--no-such-thing=1", "--nor-this", "2", "--max-num-seqs", "8"]
    kept = read_arguments(args, "VLLM", (0, 33, 0), keep_unknown=True)
    assert [(one.name, one.value) for one in kept.given] == [
        ("--no-such-thing", "1"),
        ("--nor-this", "2"),
        ("--max-num-seqs", "8"),
    ]
    left = read_arguments(args, "VLLM", (0, 33, 0))
    assert [(one.name, one.value) for one in left.given] == [("--max-num-seqs", "8")]
    for found in (kept, left):
        assert found.unresolved == ("--no-such-thing=1", "--nor-this")
        assert found.problems[0].startswith("'--no-such-thing=1' is not an option of vLLM 0.33.0")
    assert (kept.strays, left.strays) == ((), ("2",))


@pytest.mark.parametrize(
    ("argument", "unresolved"), [("-", ("-",)), ("8", ()), ("-8", ("-8",)), ("--max num seqs", ("--max num seqs",))]
)
def test_strays_that_look_like_options_are_unresolved(argument: str, unresolved: tuple[str, ...]) -> None:
    found = read_arguments([argument, "--max-num-seqs", "8"], "VLLM", (0, 33, 0))
    assert found.strays == (argument,)
    assert found.unresolved == unresolved
    assert found.value("--max-num-seqs") == "8"


def test_options_of_an_unknown_version_keep_their_spelling() -> None:
    found = read_arguments(["--new_thing", "5", "-x", "6", "--max-num-seqs=8"], "VLLM", (0, 99, 0))
    assert [(one.spelling, one.value) for one in found.given] == [
        ("--new-thing", "5"),
        ("-x", "6"),
        ("--max-num-seqs", "8"),
    ]
    assert found.unresolved == ("--new_thing", "-x")
    assert found.problems == ()


def test_a_switch_takes_no_value_and_an_option_needs_one() -> None:
    found = read_arguments(["--enforce-eager=1", "--max-num-seqs", "--dtype", "half"], "VLLM", (0, 33, 0))
    assert found.problems == (
        "'--enforce-eager=1' takes no value; write --enforce-eager",
        "'--max-num-seqs' needs a value",
    )
    assert found.value("--dtype") == "half"


def test_a_value_in_braces_is_json_and_any_other_is_not() -> None:
    found = read_arguments(["--hf-overrides", '{"a": 1}', "--served-model-name", "x"], "VLLM", (0, 33, 0))
    assert found.parts == {"--hf-overrides": {"a": 1}}


def test_at_most_four_spellings_of_an_ambiguous_prefix_are_listed() -> None:
    (problem,) = read_arguments(["--enable-"], "VLLM", (0, 33, 0)).problems
    assert problem.startswith("'--enable-' may be --enable-")
    assert problem.count(", ") == 3


def test_the_short_form_of_the_optimization_level_takes_its_own_value_only() -> None:
    found = read_arguments(["-O", "3", "--max-num-seqs=8"], "VLLM", VLLM)
    assert [(one.name, one.value) for one in found.given] == [("--optimization-level", "3"), ("--max-num-seqs", "8")]


@pytest.mark.parametrize("argument", ["two words", "-8", "-"])
def test_a_stray_that_is_no_option_is_not_split_at_its_blank(argument: str) -> None:
    assert read_arguments([argument], "VLLM", VLLM).problems == (f"{argument!r} belongs to no option",)


def test_an_option_of_one_value_takes_no_two_in_one_argument() -> None:
    (problem,) = read_arguments(["--dtype=half auto"], "VLLM", VLLM).problems
    assert problem.startswith("'--dtype=half auto': --dtype is 'half auto'; allowed: ")
    assert read_arguments(["--collect-detailed-traces=model worker"], "VLLM", VLLM).problems == ()


@pytest.mark.parametrize(("spelling", "name"), [("--b", "--block-size"), ("-b", None), ("--", None)])
def test_one_letter_selects_an_option_where_no_other_begins_with_it(spelling: str, name: str | None) -> None:
    found = find("VLLM", spelling)
    assert (found[0].name if isinstance(found, tuple) else found) == name
