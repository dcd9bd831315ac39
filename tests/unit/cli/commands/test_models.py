"""`energylens models check`."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from tests.unit.cli.conftest import compare

from energylens.cli.inputs.files import Asked, with_model_config
from energylens.cli.main import cli
from energylens.data import known_models, load_model
from energylens.data.published import published_count
from energylens.predictor.model.parameters import served_parameter_count

Put = Callable[..., Path]

QWEN3_8B: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": False,
}
MIXTRAL: dict[str, Any] = {
    "model_type": "mixtral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
}
GEMMA_TEXT: dict[str, Any] = {
    "model_type": "gemma3_text",
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 34,
    "sliding_window": 1024,
}


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Return what writes a file of the folder that is checked: an object as JSON, a string as it is."""

    def build(name: str, content: object = QWEN3_8B) -> Path:
        path = tmp_path / "configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return build


def check(folder: Path, *more: str, width: int = 120) -> Result:
    return CliRunner(env={"COLUMNS": str(width)}).invoke(cli, ["models", "check", str(folder), *more])


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    return {entry["file"]: entry for entry in json.loads(check(folder, "-o", "json").stdout)["files"]}


@pytest.fixture
def mixed(put: Put, tmp_path: Path) -> Path:
    put("Qwen--Qwen3-8B.json")
    put("deep/er/mistralai/Mixtral-8x7B-v0.1/config.json", MIXTRAL)
    put("someone--new-model.json", QWEN3_8B | {"num_hidden_layers": 12})
    put("Qwen--Qwen3-14B.json", QWEN3_8B)
    put("ai21labs--Jamba-v0.1.json", {"model_type": "jamba"})
    return tmp_path / "configs"


@pytest.mark.parametrize("width", [120, 80])
def test_the_table_fits_the_terminal(mixed: Path, width: int) -> None:
    result = check(mixed, width=width)
    assert result.exit_code == 1
    compare(f"models-check-{width}.txt", result.stdout)
    assert max(map(len, result.stdout.splitlines())) <= width


def test_json_and_yaml_have_every_figure_and_the_source(mixed: Path) -> None:
    result = check(mixed, "-o", "json")
    assert result.exit_code == 1
    compare("models-check.json", result.stdout)
    assert yaml.safe_load(check(mixed, "-o", "yaml").stdout) == json.loads(result.stdout)


def test_a_count_within_the_tolerance_or_a_refusal_is_fine(put: Put, tmp_path: Path) -> None:
    put("Qwen--Qwen3-8B.json")
    put("ai21labs--Jamba-v0.1.json", {"model_type": "jamba"})
    put("nobody--knows.json")
    result = check(tmp_path / "configs")
    assert result.exit_code == 0
    assert "3 files, 1 within 1 %, 0 off, 1 with no published count known, 1 refused" in result.stdout


def test_a_count_that_is_off_is_explained(put: Put, tmp_path: Path) -> None:
    put("Qwen--Qwen3-8B.json", QWEN3_8B | {"tie_word_embeddings": True})
    result = check(tmp_path / "configs")
    assert result.exit_code == 1
    assert "Off by more than 1 %:\n  Qwen--Qwen3-8B.json: 7.568 B counted, 8.191 B published of Qwen/Qwen3-8B" in (
        result.stdout
    )


@pytest.mark.parametrize(
    "name",
    [
        "Qwen--Qwen3-8B.json",
        "Qwen/Qwen3-8B.json",
        "qwen3-8b.json",
        "Qwen/Qwen3-8B/config.json",
        "Qwen--Qwen3-8B/config.json",
        "qwen3-8b/config.json",
        "models--Qwen--Qwen3-8B/snapshots/0123abc/config.json",
        "Qwen--Qwen3-8B-FP8.json",
        "RedHatAI/Qwen3-8B-FP8-dynamic/config.json",
    ],
)
def test_a_model_is_known_by_its_file_or_its_folders(put: Put, tmp_path: Path, name: str) -> None:
    put(name)
    (row,) = rows(tmp_path / "configs").values()
    assert row["withinTolerance"] is True


def test_an_infinity_of_a_published_file_is_read(put: Put, tmp_path: Path) -> None:
    path = put("Qwen--Qwen3-8B.json", json.dumps(QWEN3_8B | {"time_step_limit": [0.0, float("inf")]}))
    assert "Infinity" in path.read_text(encoding="utf-8")
    assert rows(tmp_path / "configs")["Qwen--Qwen3-8B.json"]["withinTolerance"] is True
    asked = Asked(())
    assert with_model_config(asked, path) == asked


def test_a_folder_further_up_does_not_name_a_model(put: Put, tmp_path: Path) -> None:
    put("Qwen/Qwen3-8B/experiments/small/config.json", QWEN3_8B | {"num_hidden_layers": 4})
    (row,) = rows(tmp_path / "configs").values()
    assert row["model"] == "experiments/small"
    assert "published" not in row


def test_a_model_is_known_by_the_name_in_the_file_last(put: Put, tmp_path: Path) -> None:
    put("a.json", QWEN3_8B | {"_name_or_path": "Qwen/Qwen3-8B"})
    put("Qwen--Qwen3-8B.json", QWEN3_8B | {"_name_or_path": "Qwen/Qwen3-14B"})
    put("b.json", QWEN3_8B | {"_name_or_path": "/data/checkpoints/step-400"})
    found = rows(tmp_path / "configs")
    assert found["a.json"]["model"] == found["Qwen--Qwen3-8B.json"]["model"] == "Qwen/Qwen3-8B"
    assert "published" not in found["b.json"]


def test_other_json_files_of_a_checkpoint_are_passed_over(put: Put, tmp_path: Path) -> None:
    put("m/config.json")
    put("m/weird.json", "[1, 2")
    for name in ("model.safetensors.index.json", "tokenizer_config.json", "generation_config.json"):
        put(name, "{}")
    put("Qwen--Qwen3-8B.json")
    assert sorted(rows(tmp_path / "configs")) == ["Qwen--Qwen3-8B.json", "m/config.json"]


def test_the_quantisation_beside_a_config_counts(put: Put, tmp_path: Path) -> None:
    put("m/config.json")
    put("m/hf_quant_config.json", {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}})
    (row,) = rows(tmp_path / "configs").values()
    assert row["weightBytes"] == pytest.approx(row["parameters"] + 2 * 151936 * 4096)


def test_the_text_part_alone_is_held_to_the_text_part(put: Put, tmp_path: Path) -> None:
    put("google--gemma-3-4b-it.json", {"model_type": "gemma3", "text_config": GEMMA_TEXT})
    vision = {"model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "image_size": 896}
    vision |= {"num_hidden_layers": 27, "patch_size": 14}
    whole = {"model_type": "gemma3", "text_config": GEMMA_TEXT, "vision_config": vision}
    put("google--gemma-3-4b-pt.json", whole)
    found = rows(tmp_path / "configs")
    assert found["google--gemma-3-4b-it.json"]["published"]["compared"] == 3_880_263_168
    assert found["google--gemma-3-4b-pt.json"]["published"]["compared"] == 4_300_079_472
    assert all(row["withinTolerance"] for row in found.values())


def test_what_engines_leave_out_is_not_compared(put: Put, tmp_path: Path) -> None:
    falcon = {"model_type": "falcon", "hidden_size": 4544, "num_attention_heads": 71, "num_hidden_layers": 32}
    put("tiiuae--falcon-7b.json", falcon | {"vocab_size": 65024, "multi_query": True})
    (row,) = rows(tmp_path / "configs").values()
    assert row["published"]["parameters"] - row["published"]["compared"] == 65024 * 4544
    assert row["published"]["notServed"].startswith("the output head")
    assert row["withinTolerance"] is True


def test_parts_that_engines_do_not_load_are_said(put: Put, tmp_path: Path) -> None:
    put("some--talker.json", {**QWEN3_8B, "talker_config": {"hidden_size": 1024}, "code2wav_config": {}})
    for i in range(4):
        put(f"some--mtp-{i}.json", QWEN3_8B | {"num_nextn_predict_layers": 1})
    text = check(tmp_path / "configs").stdout
    assert (
        "Not counted, because engines do not load them by default:\n"
        "  multi-token prediction: 4 files\n"
        "  talker: some--talker.json\n"
    ) in text
    assert rows(tmp_path / "configs")["some--talker.json"]["notServed"] == ["talker"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"model_type": ', "not JSON"),
        ("a.json", "\x00", "not JSON"),
        ("a.json", "[" * 100_000, "not JSON"),
    ],
)
def test_a_file_that_is_not_json_costs_no_other_file(
    put: Put, tmp_path: Path, name: str, content: str, message: str
) -> None:
    put("Qwen--Qwen3-8B.json")
    put(name, content)
    result = check(tmp_path / "configs")
    assert result.exit_code == 2
    assert f"Not read:\n  {name}: {message}" in result.stdout
    assert "1 within 1 %" in result.stdout
    assert "1 not read" in result.stdout


def test_a_broken_quantisation_beside_a_config_is_named(put: Put, tmp_path: Path) -> None:
    put("m/config.json")
    put("m/hf_quant_config.json", "{")
    (row,) = rows(tmp_path / "configs").values()
    assert row["notRead"].startswith("hf_quant_config.json: not JSON: ")


@pytest.mark.parametrize("content", ["[]", "3", "null", '"text"', "{}"])
def test_json_that_is_no_model_is_refused(put: Put, tmp_path: Path, content: str) -> None:
    put("a.json", content)
    result = check(tmp_path / "configs")
    assert result.exit_code == 0
    assert "Refused:\n  a.json: " in result.stdout


def test_a_folder_that_is_missing_or_empty_is_bad_input(tmp_path: Path) -> None:
    missing, empty = tmp_path / "nowhere", tmp_path / "empty"
    empty.mkdir()
    for folder, message in ((missing, "no such folder"), (empty, "holds no .json file")):
        result = check(folder)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == f"Error: {folder}: {message}\n"


def test_a_single_file_may_be_named(put: Put) -> None:
    (row,) = rows(put("Qwen--Qwen3-8B.json")).values()
    assert (row["file"], row["model"]) == ("Qwen--Qwen3-8B.json", "Qwen/Qwen3-8B")


def test_each_published_count_has_a_source_and_sane_parts() -> None:
    shipped = json.loads(resources.files("energylens.data").joinpath("published.json").read_text())["counts"]
    ids = [model for entry in shipped for model in entry["ids"]]
    for model in ids:
        count = published_count([model])
        assert count is not None
        assert (count.model, bool(count.source)) == (model, True)
        assert 0 <= count.unserved_parameters < count.parameters / 4
        assert count.text_parameters is None or count.parameters * 0.8 < count.text_parameters < count.parameters
    assert len(set(ids)) > 400


@pytest.mark.parametrize("name", known_models())
def test_the_catalogue_agrees_with_what_is_published(name: str) -> None:
    model, count = load_model(name), published_count([name])
    if count is None:
        assert name in NOTHING_PUBLISHED
    else:
        expected = count.comparable(text_only=not model.extra_weight_bytes)
        assert served_parameter_count(model) == pytest.approx(expected, rel=0.01)


NOTHING_PUBLISHED = {
    "mistralai/Mistral-Large-3-675B-Base-2512",
    "mistralai/Mistral-Large-3-675B-Instruct-2512",
    "mistralai/Mistral-Large-3-675B-Instruct-2512-BF16",
    "MiniMaxAI/MiniMax-M3",
    "MiniMaxAI/MiniMax-M3-MXFP8",
    "Qwen/Qwen3.5-27B",
    "Qwen/Qwen3.5-27B-FP8",
    "deepseek-ai/DeepSeek-V4-Pro",
    "moonshotai/Kimi-K2.5",
    "moonshotai/Kimi-K3",
    "nvidia/DeepSeek-V4-Pro-NVFP4",
    "nvidia/Kimi-K2.5-NVFP4",
    "nvidia/Kimi-K2.6-NVFP4",
    "nvidia/Kimi-K2.7-Code-NVFP4",
    "nvidia/NVIDIA-Nemotron-3.5-Lightning-30B-A3B-NVFP4",
    "sgl-project/DeepSeek-V4-Pro-FP8",
}
"""Models of the catalogue whose publishers give no figure, or one too round to hold a count to."""
