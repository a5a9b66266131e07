"""What the service keeps account of: how many wait, how many were answered, and what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import anyio
import anyio.to_thread
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

Result = TypeVar("Result")
_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class Busy(Exception):
    """More requests wait than may."""


class Workers:
    """A bounded number of threads, before which a bounded number of requests wait.

    Parameters
    ----------
    n_threads, max_waiting : int
    """

    def __init__(self, n_threads: int, max_waiting: int) -> None:
        self._threads = anyio.CapacityLimiter(n_threads)
        self._places = anyio.CapacityLimiter(n_threads + max_waiting)

    @property
    def n_taken(self) -> int:
        """Requests that are worked on or wait."""
        return int(self._places.borrowed_tokens)

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place among those that wait.

        Raises
        ------
        Busy
            If there is none left.
        """
        holder = object()
        try:
            self._places.acquire_on_behalf_of_nowait(holder)
        except anyio.WouldBlock:
            raise Busy from None
        try:
            yield
        finally:
            self._places.release_on_behalf_of(holder)

    async def run(self, work: Callable[[], Result]) -> Result:
        """Do work in a thread."""
        return await anyio.to_thread.run_sync(work, limiter=self._threads)


class Metrics:
    """Counters of one service, as Prometheus reads them.

    Parameters
    ----------
    workers : Workers
        Whose waiting line is told of.
    """

    def __init__(self, workers: Workers) -> None:
        # of its own: a process may hold several services
        self.registry = CollectorRegistry()
        self._requests = Counter("dedup_requests", "Requests by path and status.", ("path", "status"), registry=self.registry)
        self._seconds = Histogram(
            "dedup_search_seconds", "Time to look an image up, waiting included.", buckets=_BUCKETS, registry=self.registry
        )
        self._matches = Counter("dedup_matches", "Training images that images matched.", registry=self.registry)
        self._copies = Counter("dedup_copies", "Images that are copies of training images.", registry=self.registry)
        waiting = Gauge("dedup_waiting", "Requests that are worked on or wait.", registry=self.registry)
        waiting.set_function(lambda: workers.n_taken)

    def count(self, path: str, status: int) -> None:
        """A request that ended."""
        self._requests.labels(path, str(status)).inc()

    def answered(self, seconds: float, n_matches: int, *, is_copy: bool) -> None:
        """An image that was looked up."""
        self._seconds.observe(seconds)
        self._matches.inc(n_matches)
        self._copies.inc(int(is_copy))
