"""Progress in a notebook, where nobody would see it otherwise: one line that is written over until its stage ends."""

from __future__ import annotations

import sys
import time
from typing import IO, Final

from dedup.contracts import Progress, Reporter, SilentReporter

_EVERY_S: Final = 0.2
_WIDTH: Final = 78  # characters; a shorter line must cover the one before


class NotebookReporter:
    """Writes a line for each stage, and notes; `file`: by default standard output, which a notebook shows below its cell."""

    def __init__(self, file: IO[str] | None = None) -> None:
        self._file, self._stage, self._last = file or sys.stdout, "", 0.0

    def progress(self, progress: Progress) -> None:
        """Write the line again, now and then."""
        now, is_last = time.monotonic(), progress.done >= progress.total
        if self._stage and progress.stage != self._stage:
            self._file.write("\n")
        if progress.stage == self._stage and not is_last and now - self._last < _EVERY_S:
            return
        self._stage, self._last = progress.stage, now
        text = f"{progress.stage}: {progress.done:,} of {progress.total:,} {progress.unit}"
        self._file.write(f"\r{text:<{_WIDTH}}")
        self._file.flush()

    def note(self, text: str) -> None:
        """Write a line that stays."""
        self._file.write(f"\r{text:<{_WIDTH}}\n")
        self._stage = ""


def default_reporter() -> Reporter:
    """A reporter of progress in a notebook's kernel, a silent one elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return NotebookReporter() if type(shell).__name__ == "ZMQInteractiveShell" else SilentReporter()
