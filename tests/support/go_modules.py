"""Files of Go modules: definitions of other projects, as they publish them, downloaded once into Go's module cache."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

SECONDS = 300


@dataclass(frozen=True)
class GoModule:
    """A release of a Go module."""

    path: str
    version: str
    sum: str
    """Checksum of its files, as in a go.sum."""

    def file(self, name: str, folder: Path) -> Path:
        """Return a file of the module.

        Args:
            name: Path within the module.
            folder: An empty folder to run Go in.

        Raises:
            AssertionError: The module cannot be downloaded, or is another one than expected.
        """
        command = ["go", "mod", "download", "-json", f"{self.path}@{self.version}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.stdout, done.stderr
        found = json.loads(done.stdout)
        assert "Error" not in found, found["Error"]
        assert found["Sum"] == self.sum, found
        return Path(found["Dir"]) / name


HTTP_ADD_ON = GoModule("github.com/kedacore/http-add-on", "v0.15.0", "h1:6xqqvzFB/Yw9zBSsPD/T6DBTaOj6N4/NqbAs26E5XGA=")
KEDA = GoModule("github.com/kedacore/keda/v2", "v2.21.0", "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=")
KUEUE = GoModule("sigs.k8s.io/kueue", "v0.17.0", "h1:7hzb38M4eKGzYW+CFv2s1L+swzzacUCHOCXxZmAV90I=")
INFERENCE_EXTENSION = GoModule(
    "sigs.k8s.io/gateway-api-inference-extension", "v1.2.0", "h1:7H+ijrUImnW2ubcTakNgV723xDIdQx1Umv4vDVB+tTk="
)
