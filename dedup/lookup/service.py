"""What the service keeps account of: how many wait, how many were answered, and what was found."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import TypeVar

Found = TypeVar("Found")
_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class Busy(Exception):
    """More requests wait than may."""


@dataclass
class Metrics:
    """Counters, as Prometheus reads them."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: float = 0.0
    buckets: Counter[float] = field(default_factory=Counter)
    n_answered: int = 0
    n_matches: int = 0
    n_copies: int = 0
    waiting: int = 0
    _lock: Lock = field(default_factory=Lock)

    def count(self, path: str, status: int) -> None:
        """A request that ended."""
        with self._lock:
            self.requests[path, status] += 1

    def answered(self, seconds: float, n_matches: int, *, is_copy: bool) -> None:
        """An image that was looked up."""
        with self._lock:
            self.n_answered += 1
            self.seconds += seconds
            self.n_matches += n_matches
            self.n_copies += is_copy
            for limit in _BUCKETS:
                self.buckets[limit] += seconds <= limit

    def text(self) -> str:
        """The text format of Prometheus."""
        with self._lock:
            lines = ["# HELP dedup_requests_total Requests by path and status.", "# TYPE dedup_requests_total counter"]
            for (path, status), count in sorted(self.requests.items()):
                lines.append(f'dedup_requests_total{{path="{path}",status="{status}"}} {count}')
            lines += ["# HELP dedup_search_seconds Time to look an image up, waiting included.", "# TYPE dedup_search_seconds histogram"]
            lines += [f'dedup_search_seconds_bucket{{le="{limit:g}"}} {self.buckets[limit]}' for limit in _BUCKETS]
            lines += [
                f'dedup_search_seconds_bucket{{le="+Inf"}} {self.n_answered}',
                f"dedup_search_seconds_sum {self.seconds:.6f}",
                f"dedup_search_seconds_count {self.n_answered}",
            ]
            for name, kind, value, meaning in (
                ("dedup_matches_total", "counter", self.n_matches, "Training images that images matched."),
                ("dedup_copies_total", "counter", self.n_copies, "Images that are copies of training images."),
                ("dedup_waiting", "gauge", self.waiting, "Requests that are worked on or wait."),
            ):
                lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", f"{name} {value}"]
        return "\n".join(lines) + "\n"


class Workers:
    """A bounded number of threads, before which a bounded number of requests wait.

    Parameters
    ----------
    n_threads, max_waiting : int
    metrics : Metrics
    """

    def __init__(self, n_threads: int, max_waiting: int, metrics: Metrics) -> None:
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="lookup")
        self._most, self._metrics = n_threads + max_waiting, metrics

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place among those that wait.

        Raises
        ------
        Busy
            If there is none left.
        """
        if self._metrics.waiting >= self._most:
            raise Busy
        self._metrics.waiting += 1  # in the event loop alone
        try:
            yield
        finally:
            self._metrics.waiting -= 1

    async def run(self, work: Callable[[], Found]) -> Found:
        """Do work in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Given:
    """The samples that answers have named, the last so many: only their pictures are shown."""

    def __init__(self, most: int = 100_000) -> None:
        self._ids: OrderedDict[int, None] = OrderedDict()
        self._most = most

    def add(self, sample_ids: Iterable[int]) -> None:
        """Remember samples; in the event loop alone."""
        for sample_id in sample_ids:
            self._ids[sample_id] = None
            self._ids.move_to_end(sample_id)
        while len(self._ids) > self._most:
            self._ids.popitem(last=False)

    def __contains__(self, sample_id: int) -> bool:
        return sample_id in self._ids


def clock() -> float:
    """Seconds, for differences."""
    return time.perf_counter()


def host_of(header: str) -> str:
    """The host of a Host header, without its port.

    Examples
    --------
    >>> host_of("localhost:8000"), host_of("[::1]:80"), host_of("127.0.0.1")
    ('localhost', '::1', '127.0.0.1')
    """
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()


def is_known_host(header: str, known: Sequence[str]) -> bool:
    """Whether a request names a host that this service is known by: else another site's name was pointed here (DNS rebinding)."""
    return not known or host_of(header) in known
