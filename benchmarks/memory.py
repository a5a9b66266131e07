"""Peak anonymous memory of this process and all its children."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType


def anonymous_bytes(pid: int) -> int:
    """RssAnon of a process and its descendants, in bytes; mapped files are not counted."""
    total, todo = 0, [pid]
    while todo:
        current = todo.pop()
        try:
            status = Path(f"/proc/{current}/status").read_text()
            total += 1024 * int(status.split("RssAnon:")[1].split()[0])
            for task in Path(f"/proc/{current}/task").iterdir():
                todo.extend(int(child) for child in (task / "children").read_text().split())
        except (OSError, IndexError):
            continue  # it ended in the meantime
    return total


class PeakMemory:
    """Samples the memory of the process tree while a block runs; `peak` in bytes."""

    def __init__(self, every_s: float = 0.2) -> None:
        self.peak = 0
        self._every_s, self._stop = every_s, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(self._every_s):
            self.peak = max(self.peak, anonymous_bytes(os.getpid()))

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
