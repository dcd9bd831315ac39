"""`make demo` as a newcomer runs it: it must show the main job, end with 0 and leave no process behind."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.controlplane, pytest.mark.timeout(1800, func_only=True)]


def test_demo_shows_measured_beside_predicted_and_cleans_up() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "demo.py")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    row = re.search(r"J per output token\s+(\d+)([mu]?)\s+(\d+)([mu]?)\s+([+-]\d+) %", done.stdout)
    assert row is not None, done.stdout
    assert "nothing is left" in done.stdout
    assert re.search(r"default +llama-3-1-70b .* [+-]\d+ %", done.stdout), done.stdout
    # Deployments at another load than the planned one are listed, and are no part of the mean.
    accurate = re.search(r"^\s+PredictionAccurate\s+\w+\s+(\w+)", done.stdout, re.MULTILINE)
    assert accurate is not None, done.stdout
    assert ("mean error of the energy per token" in done.stdout) == (accurate[1] != "LoadDiffers"), done.stdout
    assert re.search(r"^\s+Ready\s+True\b", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"^\s+EnergyMetricsAvailable\s+True\b", done.stdout, re.MULTILINE), done.stdout
    directory = re.search(r"energylens-demo-\w+", done.stderr)
    assert directory is None, "the demo kept its logs, so it thinks that it failed"
