"""End-to-end tests start a control plane of their own, by the commands that a user types."""

from __future__ import annotations

import pytest
from tests.support.programs import build_programs


@pytest.fixture(scope="session", autouse=True)
def programs() -> None:
    """Keep the build of the programs out of the time limits of tests."""
    build_programs()
