"""Tables of measured serving runs: one row is one configuration of one model on one GPU type under one load."""

from energylens.runs.resolve import Resolved, resolver, weight_precision
from energylens.runs.table import (
    INPUT_COLUMNS,
    MEASURED_COLUMNS,
    OPTIONAL_COLUMNS,
    RunsFileError,
    RunTable,
    parse_runs,
    read_runs,
)
from energylens.runs.types import MeasuredRun, RowError, Run

__all__ = [
    "INPUT_COLUMNS",
    "MEASURED_COLUMNS",
    "OPTIONAL_COLUMNS",
    "MeasuredRun",
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
