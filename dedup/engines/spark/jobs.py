"""Spark jobs that run beside the driver's own work, so that results can be taken as they arrive."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from dedup.engines.spark.shipment import Shipment

_POLL_S = (0.1, 3.0)  # between checks for new results: at first, at most
PATIENCE_S = 30.0  # without a task that starts or ends, before the user is told


class IdleWatch:
    """Reports, once, that tasks wait and none starts: Spark waits for ever for executors that no worker can offer.

    `demand`: what an executor needs from a worker.
    `note`: takes the line.
    `patience_s`: time without a task that starts or ends, before `note` is called.
    `clock`: returns seconds.
    """

    def __init__(
        self,
        tracker: Any,
        demand: str,
        note: Callable[[str], None],
        *,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tracker, self._demand, self._note = tracker, demand, note
        self._patience_s, self._clock = patience_s, clock
        self._state: object = None
        self._since, self._has_reported = 0.0, False

    def check(self) -> None:
        """Check for progress; call it now and then while a job runs."""
        if self._has_reported:
            return
        try:
            stages = [stage for number in self._tracker.getActiveStageIds() if (stage := self._tracker.getStageInfo(number)) is not None]
        except Exception:
            return  # Spark is gone; the job's own error says so
        state = [(stage.stageId, stage.numCompletedTasks, stage.numFailedTasks) for stage in stages]
        if not stages or any(stage.numActiveTasks for stage in stages) or state != self._state:
            self._state, self._since = state, self._clock()
        elif self._clock() - self._since >= self._patience_s:
            self._has_reported = True
            self._note(
                f"no task has started for {self._patience_s:.0f} s: "
                f"no worker offers, or has left, what an executor asks for ({self._demand}); "
                "lower these settings or add such a worker; Spark goes on waiting for one"
            )


class SparkJob:
    """A Spark job on a thread of its own."""

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
        """Whether the job is still running."""
        return self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        """Wait for its end, at most this long."""
        self._thread.join(seconds)
        if self.is_alive:
            self._watch.check()

    def result(self) -> Any:
        """Wait for the action and return its result, or raise its error."""
        try:
            while self.is_alive:
                self.wait(_POLL_S[1])
        finally:
            self.cancel()
        if self.error is not None:
            raise self.error
        return self._result

    def cancel(self) -> None:
        """Stop the job if it is still running."""
        if self.is_alive:
            self._spark.interruptTag(self._tag)
            self._thread.join(30.0)


def results_as_written(job: SparkJob, shipment: Shipment, n: int) -> Iterator[tuple[int, Any]]:
    """(position of the task, result) for each result as it is written, until there are `n` or the job is over."""
    pause = _POLL_S[0]
    while shipment.n_received < n:
        is_over = not job.is_alive  # read before the results, or the last ones could be missed
        started, before = time.monotonic(), shipment.n_received
        yield from shipment.results()
        if is_over:
            return
        # a folder of 10^5 results takes a while to list: poll less often then
        pause = _POLL_S[0] if shipment.n_received > before else min(2 * pause, _POLL_S[1])
        job.wait(max(pause, 10 * (time.monotonic() - started) if shipment.n_received == before else 0.0))
