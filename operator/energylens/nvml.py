"""NVML loaded and unloaded, for those that read GPUs and those that set their power limits."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any, ClassVar, Self

import pynvml


class NvmlSession:
    """NVML, for ``with``."""

    unavailable: ClassVar[type[Exception]]
    """Raised where NVML cannot be used; one line."""
    hint: ClassVar[str]
    """What to look at then, as a question."""

    def __init__(self, library: Any = pynvml) -> None:
        """Take ``library``, which has the functions of pynvml."""
        self._nvml = library

    def __enter__(self) -> Self:
        """Load NVML; raises ``unavailable`` where there is no driver, or it refuses."""
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            raise self.unavailable(f"NVML: {error}; {self.hint}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unload NVML."""
        with contextlib.suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()
