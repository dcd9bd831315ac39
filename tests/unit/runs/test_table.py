from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energylens.runs import INPUT_COLUMNS, MEASURED_COLUMNS, RowError, Run, RunsFileError, parse_runs, read_runs

GOOD = {
    "run_id": "r1",
    "task": "chat",
    "model_id": "Qwen/Qwen3-8B",
    "weight_precision": "bfloat16",
    "gpu_model": "H100",
    "num_gpus": "2",
    "tensor_parallel": "2",
    "expert_parallel": "1",
    "data_parallel": "1",
    "max_num_seqs": "64",
    "concurrency": "63.5",
    "input_tokens_assumed": "300",
    "output_tokens": "860.5",
    "engine": "vllm==0.11.1",
}


def csv_of(*rows: dict[str, str], columns: tuple[str, ...] = INPUT_COLUMNS) -> str:
    lines = [",".join(columns)]
    lines += [",".join(row.get(name, "") for name in columns) for row in rows]
    return "\n".join(lines) + "\n"


def only(text: str, *, measured: bool = False) -> Run | RowError:
    (row,) = parse_runs(text, "in.csv", measured=measured).rows
    return row


def test_a_row_is_read_as_written() -> None:
    run = only(csv_of(GOOD))
    assert run == Run(
        run_id="r1",
        task="chat",
        model_id="Qwen/Qwen3-8B",
        weight_precision="bfloat16",
        gpu_model="H100",
        num_gpus=2,
        tensor_parallel=2,
        expert_parallel=1,
        data_parallel=1,
        max_num_seqs=64,
        concurrency=63.5,
        input_tokens=300.0,
        output_tokens=860.5,
        engine="vllm==0.11.1",
    )


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("BF16", "bfloat16"),
        ("fp16", "bfloat16"),
        ("Float16", "bfloat16"),
        ("FP8", "fp8"),
        ("NVFP4", "nvfp4"),
        ("", None),
    ],
)
def test_precisions_are_read_in_their_usual_spellings(text: str, precision: str | None) -> None:
    run = only(csv_of(GOOD | {"weight_precision": text}))
    assert isinstance(run, Run)
    assert run.weight_precision == precision


def test_what_may_be_left_out_has_defaults() -> None:
    columns = tuple(
        name
        for name in INPUT_COLUMNS
        if name not in {"task", "weight_precision", "tensor_parallel", "engine", "concurrency"}
    )
    run = only(csv_of(GOOD, columns=columns))
    assert isinstance(run, Run)
    assert (run.tensor_parallel, run.engine, run.concurrency, run.weight_precision) == (2, None, 64.0, None)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("num_gpus", "0", "num_gpus='0' is not a number above 0"),
        ("num_gpus", "2.5", "num_gpus='2.5' is not a whole number"),
        ("num_gpus", "", "num_gpus is empty"),
        ("data_parallel", "3", "data_parallel=3 must divide num_gpus=2"),
        ("tensor_parallel", "4", "must be num_gpus=2"),
        ("max_num_seqs", "many", "max_num_seqs='many'"),
        ("max_num_seqs", "1e300", "max_num_seqs='1e300'"),
        ("concurrency", "nan", "concurrency='nan'"),
        ("concurrency", "-1", "concurrency='-1'"),
        ("concurrency", "1_0", "concurrency='1_0'"),
        ("output_tokens", "inf", "output_tokens='inf'"),
        ("weight_precision", "fp7", "weight_precision='fp7' is not one of bfloat16, fp8"),
        ("model_id", "", "model_id is empty"),
        ("run_id", "", "run_id is empty"),
    ],
)
def test_a_bad_field_is_named_with_its_value(field: str, value: str, said: str) -> None:
    row = only(csv_of({**GOOD, field: value}))
    assert isinstance(row, RowError)
    assert said in row.message
    assert row.row == 2


def test_bad_rows_cost_no_other() -> None:
    good = ",".join(GOOD.values())
    text = (
        csv_of(GOOD) + 'r2,"unclosed\n' + "r3\n" + good + ",one,more\n" + '"a"b,c\n\n' + good.replace("r1", "r9") + "\n"
    )
    table = parse_runs(text, "in.csv", measured=False)
    assert [run.run_id for run in table.runs] == ["r1", "r9"]
    assert [(error.row, error.run_id) for error in table.errors] == [(3, ""), (4, "r3"), (5, "r1"), (6, "")]
    assert "has 16 fields; the header has 14" in table.errors[2].message


def test_measured_columns_are_not_looked_at_unless_asked_for() -> None:
    columns = (*INPUT_COLUMNS, *MEASURED_COLUMNS, "host_bound")
    row = {**GOOD, **dict.fromkeys(MEASURED_COLUMNS, "rubbish"), "host_bound": "1"}
    run = only(csv_of(row, columns=columns))
    assert isinstance(run, Run)
    assert run.measured is None
    assert not run.host_bound
    assert isinstance(only(csv_of(row, columns=columns), measured=True), RowError)


def test_measured_columns_are_read_when_asked_for() -> None:
    columns = (*INPUT_COLUMNS, *MEASURED_COLUMNS, "host_bound")
    row = {**GOOD, **{name: str(i) for i, name in enumerate(MEASURED_COLUMNS, start=1)}, "host_bound": "1"}
    run = only(csv_of(row, columns=columns), measured=True)
    assert isinstance(run, Run)
    assert run.measured is not None
    assert (run.host_bound, run.measured.median_itl_ms, run.measured.joules_per_output_token) == (True, 1.0, 9.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no header line"),
        ("{}\n", "column 'run_id' is missing"),
        ("run_id;model_id;gpu_model\n", "column 'run_id' is missing"),
        (csv_of(GOOD, columns=INPUT_COLUMNS[:5]), "column 'num_gpus' is missing"),
        ("run_id,run_id\n", "column 'run_id' appears 2 times"),
        ('run_id,"x\n', "not a CSV table"),
    ],
)
def test_a_file_that_is_no_table_is_one_clear_error(text: str, said: str) -> None:
    with pytest.raises(RunsFileError, match=r"in\.csv: ") as error:
        parse_runs(text, "in.csv", measured=False)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"run_id\xff\xfe\n")
    for path, said in (
        (binary, "not a text file in UTF-8"),
        (tmp_path / "none.csv", "No such file"),
        (tmp_path, "directory"),
    ):
        with pytest.raises(RunsFileError, match=said):
            read_runs(path, measured=False)


def test_line_ends_and_byte_order_mark_of_spreadsheets_are_read(tmp_path: Path) -> None:
    path = tmp_path / "excel.csv"
    path.write_bytes(b"\xef\xbb\xbf" + csv_of(GOOD, GOOD).replace("\n", "\r\n").encode())
    assert len(read_runs(path, measured=False).runs) == 2


@given(
    st.dictionaries(
        st.sampled_from(INPUT_COLUMNS), st.text(alphabet=st.characters(exclude_characters="\r\n"), max_size=12)
    )
)
def test_any_cell_gives_a_run_or_an_error_that_says_something(cells: dict[str, str]) -> None:
    quoted = {name: '"' + value.replace('"', '""') + '"' for name, value in cells.items()}
    row = only(csv_of({**GOOD, **quoted}))
    assert isinstance(row, Run) or (row.message and "\n" not in row.message)


@given(st.text())
def test_any_text_after_the_header_leaves_the_good_row_readable(text: str) -> None:
    table = parse_runs(csv_of(GOOD) + text + "\n" + ",".join(GOOD.values()), "in.csv", measured=False)
    assert table.runs[0].run_id == table.runs[-1].run_id == "r1"
    assert len(table.runs) >= 2
