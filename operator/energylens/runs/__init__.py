"""Tables of measured serving runs: one row is one configuration of one model on one GPU type under one load."""

from energylens.runs.resolve import Resolved, resolver, weight_precision
from energylens.runs.table import (
    INPUT_COLUMNS,
    MEASURED_COLUMNS,
    Measured,
    RowError,
    Run,
    RunsFileError,
    RunTable,
    parse_runs,
    read_runs,
)

__all__ = [
    "INPUT_COLUMNS",
    "MEASURED_COLUMNS",
    "Measured",
    "Resolved",
    "RowError",
    "Run",
    "RunTable",
    "RunsFileError",
    "parse_runs",
    "read_runs",
    "resolver",
    "weight_precision",
]
