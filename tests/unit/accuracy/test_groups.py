from __future__ import annotations

import pytest

from energylens.accuracy.groups import model_groups
from energylens.data import load_model


@pytest.mark.parametrize(
    "siblings",
    [
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "Qwen/Qwen3-30B-A3B-Thinking-2507", "Qwen/Qwen3-Coder-30B-A3B-Instruct"),
        (
            "Qwen/Qwen3-235B-A22B-Instruct-2507",
            "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8",
            "Qwen/Qwen3-235B-A22B-Thinking-2507-FP8",
        ),
        (
            "meta-llama/Llama-3.1-70B-Instruct",
            "meta-llama/Llama-3.3-70B-Instruct",
            "deepseek-ai/DeepSeek-R1-Distill-Llama-70B",
        ),
        ("deepseek-ai/DeepSeek-V3.1", "deepseek-ai/DeepSeek-R1"),
    ],
)
def test_siblings_are_one_group(siblings: tuple[str, ...]) -> None:
    others = ("Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8")
    groups = model_groups({name: load_model(name) for name in (*siblings, *others)})
    assert len({groups[name] for name in siblings}) == 1
    assert len(set(groups.values())) == 1 + len(others)


def test_a_group_is_named_by_its_shortest_id() -> None:
    names = ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B")
    assert set(model_groups({name: load_model(names[0]) for name in names}).values()) == {"Llama-3.1-8B and 1 more"}
    assert model_groups({names[0]: load_model(names[0])}) == {names[0]: "Llama-3.1-8B-Instruct"}
