"""Settings of all tests, and what several workers of pytest-xdist share out among them."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("energylens", deadline=None)
settings.load_profile("energylens")


def pytest_configure(config: pytest.Config) -> None:
    """Give each worker ports of its own, since control planes of two workers may start at the same moment."""
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        number, share = int(worker["workerid"].removeprefix("gw")), 10000 // worker["workercount"]
        os.environ["ENERGYLENS_DEV_PORTS"] = f"{20000 + number * share}-{20000 + (number + 1) * share - 1}"
