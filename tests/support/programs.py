"""The programs of the control plane, built before the first test that needs them."""

from __future__ import annotations

import sys

from energylens_dev.devcluster import StreamProgress
from energylens_dev.devcluster.binaries import Binaries
from energylens_dev.devcluster.components import COMPONENTS


def build_programs() -> None:
    """Build what is missing, which takes many minutes once; of several workers one builds and the others wait."""
    binaries = Binaries(StreamProgress(sys.stderr))
    binaries.ensure(list(COMPONENTS))
    binaries.stages()
