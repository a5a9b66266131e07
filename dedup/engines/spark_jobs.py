"""Spark jobs that run beside the driver's own work, so that their results are taken while they come."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from dedup.engines.shipping import Shipment

_POLL_S = (0.1, 3.0)  # between looks for new results: at first, at most


class SparkJob:
    """A Spark job on a thread of its own, so that its results can be taken while it goes on."""

    def __init__(self, spark: Any, action: Callable[[Any], object]) -> None:
        self.error: BaseException | None = None
        self._spark, self._tag = spark, f"dedup-{uuid.uuid4().hex}"
        self._thread = threading.Thread(target=self._run, args=(action,), daemon=True)
        self._thread.start()

    def _run(self, action: Callable[[Any], object]) -> None:
        self._spark.addTag(self._tag)
        try:
            action(self._spark)
        except BaseException as error:
            self.error = error

    @property
    def is_alive(self) -> bool:
        """Whether the job goes on."""
        return self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        """Wait for its end, but no longer than this."""
        self._thread.join(seconds)

    def cancel(self) -> None:
        """Stop it, if it goes on."""
        if self.is_alive:
            self._spark.interruptTag(self._tag)
            self._thread.join(30.0)


def as_they_come(job: SparkJob, shipment: Shipment, n: int) -> Iterator[tuple[int, Any]]:
    """The results of a job while it goes on, until there are `n` or the job is over: (position of the task, result)."""
    pause = _POLL_S[0]
    while shipment.n_received < n:
        is_over = not job.is_alive  # before the look: what the job wrote last must not be missed
        started, before = time.monotonic(), shipment.n_received
        yield from shipment.results()
        if is_over:
            return
        # a folder of 10^5 results takes a while to list: look less often then
        pause = _POLL_S[0] if shipment.n_received > before else min(2 * pause, _POLL_S[1])
        job.wait(max(pause, 10 * (time.monotonic() - started) if shipment.n_received == before else 0.0))
