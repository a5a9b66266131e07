"""Worker processes: spawned, immune to Ctrl-C, which the driver handles, and gone when the driver is."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from queue import SimpleQueue as ThreadQueue
from types import FrameType
from typing import TYPE_CHECKING

from dedup.machine import give_gpus

if TYPE_CHECKING:
    from dedup.contracts import Result, Task

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def start_pool(n_processes: int, gpus: Sequence[str] = (), n_cores: int = 1) -> ProcessPoolExecutor:
    """Worker processes, which start when they are needed: submit to them within `starting_workers`.

    `gpus`: addresses of which each worker takes one for good.
    `n_cores`: share of the cores of each worker with a GPU.
    """
    spawn = multiprocessing.get_context("spawn")  # fork would copy locks held by threads of fsspec and Arrow
    addresses = None
    if gpus:
        addresses = spawn.SimpleQueue()
        for address in gpus:
            addresses.put(address)
    n_sharers = -(-len(gpus) // max(1, len(set(gpus))))
    return ProcessPoolExecutor(n_processes, mp_context=spawn, initializer=_begin, initargs=(addresses, n_cores, n_sharers))


def stop_pool(pool: ProcessPoolExecutor) -> None:
    """End the workers, even in the middle of a task; a second Ctrl-C waits until they are gone."""
    with _deferred_interrupts():
        for process in list((pool._processes or {}).values()):
            process.terminate()
        # wait: the pool's own thread must be gone before the interpreter wakes it at exit through a pipe it has closed
        pool.shutdown(wait=True, cancel_futures=True)


def completed(
    pool: ProcessPoolExecutor, work: Callable[[Task], Result], tasks: Iterable[Task], n_ahead: int
) -> Iterator[tuple[int, Future[Result]]]:
    """Give `work` on every task to the pool, `n_ahead` at a time: 10^5 pickled tasks are never held at once.

    Yields the number of each task with its future, as soon as it is done.

    It waits on a queue of its own. A Ctrl-C inside `concurrent.futures.wait` may leave a future locked by this thread; the pool's thread
    wants that lock, and stopping the pool would wait for it for ever.
    """
    done: ThreadQueue[tuple[int, Future[Result]]] = ThreadQueue()
    waiting: dict[int, Future[Result]] = {}
    remaining = iter(enumerate(tasks))
    try:
        while True:
            with starting_workers():
                while len(waiting) < n_ahead and (item := next(remaining, None)) is not None:
                    number, task = item
                    waiting[number] = pool.submit(work, task)
                    waiting[number].add_done_callback(partial(_put, done, number))
            if not waiting:
                return
            number, future = done.get()
            del waiting[number]
            yield number, future
    finally:
        with _deferred_interrupts():
            for future in waiting.values():
                future.cancel()


def _put(done: ThreadQueue[tuple[int, Future[Result]]], number: int, future: Future[Result]) -> None:
    done.put((number, future))


@contextmanager
def starting_workers(n_threads: int = 1) -> Iterator[None]:
    """While workers may start: give them `n_threads` threads each, and keep Ctrl-C from them.

    Numpy and FAISS read the thread variables when a worker starts. A Ctrl-C reaches the whole process group, including workers that are
    still importing, each of which would print a traceback: they start with it blocked. Nor may it arrive here between a worker's start
    and the message with its work: it is raised afterwards.
    """
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(n_threads)))
    resource_tracker.ensure_running()  # it unblocks the signal when it starts
    try:
        with _deferred_interrupts():
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _deferred_interrupts() -> Iterator[None]:
    """Block Ctrl-C in processes started now, and raise one that arrives meanwhile at the end."""
    mask = signal.pthread_sigmask(
        signal.SIG_BLOCK, {signal.SIGINT}
    )  # of this thread, inherited by children; other threads may still receive it
    handler, missed = signal.getsignal(signal.SIGINT), list[tuple[int, FrameType | None]]()
    is_raised = callable(handler) and threading.current_thread() is threading.main_thread()
    if is_raised:
        signal.signal(signal.SIGINT, lambda number, frame: missed.append((number, frame)))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if is_raised:
            signal.signal(signal.SIGINT, handler)
            if missed and callable(handler):
                handler(*missed[0])


def _begin(addresses: SimpleQueue[str] | None, n_cores: int, n_sharers: int) -> None:
    """Set up a worker: take a GPU for good, and end when the driver is gone.

    It would wait for ever, on a pipe whose other end the workers hold too.
    """
    if addresses is not None:
        give_gpus([addresses.get()], n_cores, n_sharers)
    # Ctrl-C reaches the whole process group; the driver stops the workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait_then_exit, args=(parent,), daemon=True).start()


def _wait_then_exit(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
