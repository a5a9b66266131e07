"""Spark jobs that run beside the driver's own work, so that their results are taken while they come."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from dedup.engines.spark.shipment import Shipment

_POLL_S = (0.1, 3.0)  # between looks for new results: at first, at most
PATIENCE_S = 30.0  # without a task that starts or ends, before a user is told


class IdleWatch:
    """Says, once, that tasks wait and none starts: Spark waits for ever for executors that no worker can give.

    Parameters
    ----------
    tracker : pyspark.StatusTracker
    asked : str
        What an executor asks of a worker.
    note : callable
        Takes the line.
    patience_s : float
        Without a task that starts or ends, before it is said.
    clock : callable
        Gives seconds.
    """

    def __init__(
        self,
        tracker: Any,
        asked: str,
        note: Callable[[str], None],
        *,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tracker, self._asked, self._note = tracker, asked, note
        self._patience_s, self._clock = patience_s, clock
        self._state: object = None
        self._since, self._has_said = 0.0, False

    def look(self) -> None:
        """See whether tasks go on; to be called now and then while a job runs."""
        if self._has_said:
            return
        try:
            stages = [stage for number in self._tracker.getActiveStageIds() if (stage := self._tracker.getStageInfo(number)) is not None]
        except Exception:
            return  # Spark is gone; the job's own error says so
        state = [(stage.stageId, stage.numCompletedTasks, stage.numFailedTasks) for stage in stages]
        if not stages or any(stage.numActiveTasks for stage in stages) or state != self._state:
            self._state, self._since = state, self._clock()
        elif self._clock() - self._since >= self._patience_s:
            self._has_said = True
            self._note(
                f"no task has started for {self._patience_s:.0f} s: "
                f"no worker offers, or has left, what an executor asks for ({self._asked}); "
                "lower these settings or add such a worker; Spark goes on waiting for one"
            )


class SparkJob:
    """A Spark job on a thread of its own, so that its results can be taken while it goes on."""

    def __init__(self, spark: Any, action: Callable[[Any], Any], watch: IdleWatch) -> None:
        self.error: BaseException | None = None
        self._result: Any = None
        self._spark, self._watch, self._tag = spark, watch, f"dedup-{uuid.uuid4().hex}"
        self._thread = threading.Thread(target=self._run, args=(action,), daemon=True)
        self._thread.start()

    def _run(self, action: Callable[[Any], Any]) -> None:
        self._spark.addTag(self._tag)
        try:
            self._result = action(self._spark)
        except BaseException as error:
            self.error = error

    @property
    def is_alive(self) -> bool:
        """Whether the job goes on."""
        return self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        """Wait for its end, but no longer than this."""
        self._thread.join(seconds)
        if self.is_alive:
            self._watch.look()

    def result(self) -> Any:
        """What the action gave, or raised, once it is over."""
        try:
            while self.is_alive:
                self.wait(_POLL_S[1])
        finally:
            self.cancel()
        if self.error is not None:
            raise self.error
        return self._result

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
