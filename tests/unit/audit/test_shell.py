"""What a container runs, through the kubelet's references and a shell's script."""

from __future__ import annotations

import pytest

from energylens.audit.shell import command_lines

SERVE = ["vllm", "serve", "org/m"]
CASES: dict[str, tuple[list[str], list[str], dict[str, str], list[list[str]]]] = {
    "plain": (["vllm"], ["serve", "org/m"], {}, [SERVE]),
    "arguments alone": ([], ["--model=org/m"], {}, [["--model=org/m"]]),
    "references": (["vllm"], ["serve", "$(MODEL)", "$(GONE)", "$$(MODEL)"], {"MODEL": "org/m"},
                   [[*SERVE, "$(GONE)", "$(MODEL)"]]),
    "shell": (["/bin/sh", "-c"], ["vllm serve org/m"], {}, [SERVE]),
    "exec": (["bash", "-ec", "exec vllm serve org/m"], [], {}, [["exec", *SERVE]]),
    "options before the script": (["bash", "-o", "pipefail", "-c", "vllm serve org/m"], [], {}, [SERVE]),
    "options after -c": (["bash", "-c", "-o", "pipefail", "vllm serve org/m"], [], {}, [SERVE]),
    "login shell behind tini": (["tini", "--", "bash", "-lc", "vllm serve org/m"], [], {}, [SERVE]),
    "continuation": (["sh", "-c", "vllm serve \\\n  org/m \\\n"], [], {}, [SERVE]),
    "comment": (["sh", "-c", "# starts 'it'\nvllm serve org/m # the model\n"], [], {}, [SERVE]),
    "several commands": (["sh", "-c", "set -e; sleep 1 && vllm serve org/m || exit 3"], [], {},
                         [["set", "-e"], ["sleep", "1"], SERVE, ["exit", "3"]]),
    "redirections": (["sh", "-c", "vllm serve org/m 2>&1 > /tmp/log | tee log"], [], {},
                     [SERVE, ["1"], ["tee", "log"]]),
    "variables": (["sh", "-c", "vllm serve $MODEL ${MORE}"], [], {"MODEL": "org/m", "MORE": "--a b"},
                  [[*SERVE, "--a", "b"]]),
    "quoted variable": (["sh", "-c", 'vllm serve "$MODEL" "$MORE"'], [], {"MODEL": "org/m", "MORE": "a b"},
                        [[*SERVE, "a b"]]),
    "single quotes": (["sh", "-c", "vllm serve org/m '$HOME'"], [], {"HOME": "/x"}, [[*SERVE, "$HOME"]]),
    "defaults": (["sh", "-c", "vllm serve ${MODEL:-org/m} ${N:=4} ${N:+--n}"], [], {"N": "2"}, [[*SERVE, "2", "--n"]]),
    "assignments": (["sh", "-c", "export MODEL='org/m'\nN=4; vllm serve $MODEL -tp $N"], [], {},
                    [["export", "MODEL=org/m"], ["N=4"], [*SERVE, "-tp", "4"]]),
    "positional": (["sh", "-c", 'exec "$0" "$@" --x', "vllm"], ["serve", "org/m", "a b"], {},
                   [["exec", *SERVE, "a b", "--x"]]),
    "json": (["sh", "-c", """vllm serve org/m --c '{"a": "b c"}'"""], [], {}, [[*SERVE, "--c", '{"a": "b c"}']]),
    "substitution": (["sh", "-c", "vllm serve org/m -tp $(nvidia-smi -L | wc -l) -x `a b`"], [], {},
                     [[*SERVE, "-tp", "$(nvidia-smi -L | wc -l)", "-x", "`a b`"]]),
    "unknown variable": (["sh", "-c", "vllm serve org/m -tp $TP"], [], {}, [[*SERVE, "-tp", "$TP"]]),
    "condition": (["sh", "-c", "if [ -f /x ]; then vllm serve org/m; fi"], [], {},
                  [["if", "[", "-f", "/x", "]"], ["then", *SERVE], ["fi"]]),
    "nothing": ([], [], {}, []),
    "open quote": (["sh", "-c", 'echo a; vllm serve "org'], [], {}, [["echo", "a"], ["vllm", "serve"]]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_command_lines(name: str) -> None:
    command, args, env, wanted = CASES[name]
    assert command_lines(command, args, env) == wanted
