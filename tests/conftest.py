"""Settings of all tests, and what several workers of pytest-xdist share out among them."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from energylens_dev.devcluster.ports import VARIABLE, port_range

# How long an example takes says more about the machine than about the code.
settings.register_profile("energylens", deadline=None)
settings.load_profile("energylens")


def pytest_configure(config: pytest.Config) -> None:
    """Give each worker ports of its own, since control planes of two workers may start at the same moment."""
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        ports, number = port_range(os.environ), int(worker["workerid"].removeprefix("gw"))
        share = len(ports) // worker["workercount"]
        own = ports[number * share : (number + 1) * share]
        os.environ[VARIABLE] = f"{own[0]}-{own[-1]}"
