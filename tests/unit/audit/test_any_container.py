"""Whatever containers say, reading them answers and never raises."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.audit_cluster import pod

from energylens.audit.served import served_models
from energylens.audit.shell import command_lines

WORDS = st.one_of(
    st.sampled_from(
        [
            *("vllm", "serve", "org/m", "sh", "-c", "bash", "-lc", "exec", "python", "-m", "--", "tini"),
            *("vllm.entrypoints.openai.api_server", "sglang.launch_server", "trtllm-serve", "dynamo.vllm"),
            *("--model", "--model=", "-tp", "--tp", "4", "0", "-1", "--tensor-parallel-size=8", "-dp", "--dp=3"),
            *("--enable-dp-attention", "--max-num-seqs=x", "--max-running-requests", "--config", "/etc/x.yaml"),
            *(
                "$(MODEL)",
                "$MODEL",
                "${MODEL:-a b}",
                "${",
                "$(",
                "`",
                "'",
                '"',
                "\\",
                "\n",
                ";",
                "&&",
                "|",
                "#",
                "2>&1",
            ),
            *("--hf-overrides", "{", '{"a": 1}', "--hf-overrides.a.b", "--kv-transfer-config", "[]"),
        ]
    ),
    st.text(max_size=12),
)
SCRIPTS = st.lists(WORDS, max_size=10).map(" ".join)
CONTAINERS = st.fixed_dictionaries(
    {"image": st.sampled_from(["vllm/vllm-openai:v0.24.0", "lmsysorg/sglang:latest", "a", "", ":", "@", "x/y:z@sha"])},
    optional={
        "command": st.one_of(st.lists(WORDS, max_size=6), SCRIPTS.map(lambda text: ["/bin/sh", "-c", text])),
        "args": st.lists(st.one_of(WORDS, SCRIPTS), max_size=8),
        "env": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from(["MODEL", "A", ""])}, optional={"value": SCRIPTS}),
            max_size=3,
        ),
    },
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(CONTAINERS, st.integers(1, 8))
def test_any_container_is_read_or_said_not_to_be(container: dict[str, Any], gpus: int) -> None:
    (found,) = served_models([pod("a", container, gpus=gpus)], {}, {})
    assert (found.arguments is None) == bool(found.unread)
    assert found.gpus == gpus
    if found.arguments is not None:
        layout = found.arguments.layout
        assert min(layout.tensor_parallel, layout.pipeline_parallel, layout.data_parallel, layout.expert_parallel) >= 1


@settings(max_examples=300, deadline=None, derandomize=True)
@given(SCRIPTS, st.dictionaries(st.sampled_from(["MODEL", "A"]), st.text(max_size=8)))
def test_any_script_ends(script: str, env: dict[str, str]) -> None:
    for line in command_lines(["sh", "-c", script, "zero", "one"], [], env):
        assert all(isinstance(word, str) for word in line)
