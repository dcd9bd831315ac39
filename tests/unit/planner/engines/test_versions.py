"""Engine and version by the name of an image, and which options a version has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from energylens.api.llmdeployment import Engine
from energylens.planner.engines.options import REMOVED, choices_of, find, is_gone, is_read, nearest, options_of
from energylens.planner.engines.versions import PROVED, display, other_engine, tag_version, tagged_version, version_of


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("vllm/vllm-openai:v0.24.0", "0.24.0"),
        ("vllm/vllm-openai:0.24.1", "0.24.1"),
        ("registry.example.com:5000/vllm/vllm-openai:v0.24.0-cu130", "0.24.0"),
        ("lmsysorg/sglang:v0.5.23-rocm@sha256:00", "0.5.23"),
        ("registry.example.com:5000/vllm/vllm-openai", None),
        ("vllm/vllm-openai:latest", None),
        ("vllm/vllm-openai:v0.24", None),
        ("10.1.2.3/vllm", None),
        ("", None),
    ],
)
def test_the_tag_names_the_version(image: str, version: str | None) -> None:
    assert tag_version(image) == version
    engine = Engine(type="VLLM", image=image or None)
    assert tagged_version(engine) == version
    expected = PROVED["VLLM"] if version is None else tuple(int(part) for part in version.split("."))
    assert version_of(engine) == expected


@pytest.mark.parametrize(
    ("kind", "image", "other"),
    [
        ("VLLM", "lmsysorg/sglang:v0.5.23", "SGLang"),
        ("SGLang", "vllm/vllm-openai:v0.24.0", "VLLM"),
        ("VLLM", "vllm/vllm-openai:v0.24.0", None),
        ("SGLang", "registry.example.com:5000/vllm/sglang", None),
        ("VLLM", "team/SGLang-patched@sha256:00", "SGLang"),
        ("VLLM", "team/vllm-and-sglang:1", None),
        ("VLLM", "team/serving:vllm", None),
        ("VLLM", None, None),
    ],
)
def test_the_last_part_of_the_name_tells_the_engine(kind: str, image: str | None, other: str | None) -> None:
    assert other_engine(Engine.model_validate({"type": kind, "image": image})) == other


def test_versions_are_shown_with_the_name_of_the_engine() -> None:
    assert display("VLLM", (0, 33, 0)) == "vLLM 0.33.0"
    assert display("SGLang", (0, 5, 23)) == "SGLang 0.5.23"


@pytest.mark.parametrize(("engine", "other"), [("VLLM", (0, 32, 9)), ("SGLang", (0, 5, 22))])
def test_only_the_options_of_the_checked_version_are_known(engine: str, other: tuple[int, ...]) -> None:
    assert is_read(engine, PROVED[engine])
    assert not is_read(engine, other)


@pytest.mark.parametrize(
    ("engine", "spelling", "expected"),
    [
        ("VLLM", "--tensor-parallel-size", ("--tensor-parallel-size", "--tensor-parallel-size")),
        ("VLLM", "--tensor_parallel_size", ("--tensor-parallel-size", "--tensor-parallel-size")),
        ("VLLM", "-tp", ("--tensor-parallel-size", "-tp")),
        ("VLLM", "--tensor-par", ("--tensor-parallel-size", "--tensor-parallel-size")),
        ("SGLang", "--tensor-parallel-size", ("--tp-size", "--tensor-parallel-size")),
        ("VLLM", "--", None),
        ("VLLM", "-t", None),
        ("VLLM", "--no-such-option", None),
        ("SGLang", "--tensor_parallel_size", None),
    ],
)
def test_spellings_select_an_option(engine: str, spelling: str, expected: tuple[str, str] | None) -> None:
    found = find(engine, spelling)
    if expected is None:
        assert found is None
    else:
        assert isinstance(found, tuple)
        assert (found[0].name, found[1]) == expected


def test_an_ambiguous_prefix_lists_what_it_may_be() -> None:
    found = find("VLLM", "--max-num-")
    assert isinstance(found, list)
    assert "--max-num-seqs" in found
    assert all(spelling.startswith("--max-num-") for spelling in found)


def test_the_nearest_spelling_is_offered_only_if_it_is_near() -> None:
    assert nearest("VLLM", "--max-num-seq") == "--max-num-seqs"
    assert nearest("VLLM", "-max_num_seqz") == "--max-num-seqs"
    assert nearest("VLLM", "--zzzz") is None


def test_values_beyond_the_parsers_list_are_those_of_vllm() -> None:
    level = next(option for option in options_of("VLLM") if option.name == "--optimization-level")
    assert choices_of("VLLM", level) == ("0", "1", "2", "3")
    assert choices_of("SGLang", level) == ()
    dtype = next(option for option in options_of("VLLM") if option.name == "--dtype")
    assert "bfloat16" in choices_of("VLLM", dtype)


def test_an_option_is_gone_from_one_version_until_it_comes_back() -> None:
    for spelling, (gone, again) in REMOVED.items():
        before = (*gone[:-1], gone[-1] - 1) if gone[-1] else (gone[0], gone[1] - 1, 99)
        assert not is_gone("VLLM", spelling, before)
        assert is_gone("VLLM", spelling, gone)
        assert not is_gone("SGLang", spelling, gone)
        assert again is None or not is_gone("VLLM", spelling, again)
    assert not is_gone("VLLM", "--max-num-seqs", (9, 9, 9))


@pytest.mark.parametrize(
    ("number", "text", "taken"),
    [("int", "8", True), ("int", "8.5", False), ("float", "8.5", True), ("float", "much", False), ("", "much", True)],
)
def test_numbers_are_read_as_python_reads_them(number: str, text: str, taken: bool) -> None:
    option = options_of("VLLM")[0]
    assert replace(option, number=number).takes(text) is taken
