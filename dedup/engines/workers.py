"""Worker processes: spawned, deaf to Ctrl-C, which the driver answers, and gone when the driver is."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from types import FrameType

from dedup.machine import give_gpus

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def start_pool(n_processes: int, gpus: Sequence[str] = (), n_cores: int = 1) -> ProcessPoolExecutor:
    """Worker processes, which start when they are needed: submit to them within `starting_workers`.

    `gpus`: where any are given, each worker takes one of them for good.
    `n_cores`: each worker's share of the cores, for those that have a GPU.
    """
    spawn = multiprocessing.get_context("spawn")  # fork would copy locks of threads that fsspec and Arrow started
    addresses = None
    if gpus:
        addresses = spawn.SimpleQueue()
        for address in gpus:
            addresses.put(address)
    n_sharers = -(-len(gpus) // max(1, len(set(gpus))))
    return ProcessPoolExecutor(n_processes, mp_context=spawn, initializer=_begin, initargs=(addresses, n_cores, n_sharers))


def stop_pool(pool: ProcessPoolExecutor) -> None:
    """End the workers, in the middle of a task if need be; a second Ctrl-C waits until they are gone."""
    with _interruptions_later():
        for process in list((pool._processes or {}).values()):
            process.terminate()
        # wait: the pool's own thread must be gone before the interpreter wakes it at exit through a pipe it has closed
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def starting_workers(n_threads: int = 1) -> Iterator[None]:
    """What holds while workers may start: they get so many threads, and no Ctrl-C.

    Numpy and FAISS read the thread variables when a worker starts. A Ctrl-C reaches the whole process group, workers that are still
    importing included, which would each print a traceback: they are born with it blocked. Nor may it come here between a worker's
    birth and the message that tells it what to do: it is raised when that is done.
    """
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(n_threads)))
    resource_tracker.ensure_running()  # it unblocks the signal when it starts
    try:
        with _interruptions_later():
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _interruptions_later() -> Iterator[None]:
    """Block Ctrl-C in processes that are born now, and let one that comes meanwhile be raised at the end."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # of this thread, which children inherit; others may still be told
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
    """What a worker does first: take a GPU of those there are for good, and see to its end."""
    if addresses is not None:
        give_gpus([addresses.get()], n_cores, n_sharers)
    _end_with_parent()


def _end_with_parent() -> None:
    """End this worker when the driver is gone: a pool's workers wait on a pipe whose other end they hold themselves."""
    # Ctrl-C reaches the whole process group; the driver stops the workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait_then_exit, args=(parent,), daemon=True).start()


def _wait_then_exit(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
