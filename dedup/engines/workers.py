"""Worker processes: spawned, immune to Ctrl-C, which the driver handles, and gone when the driver is."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
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

from dedup.errors import StageError
from dedup.machine import give_gpus

if TYPE_CHECKING:
    from dedup.contracts import Result, Task

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def start_pool(n_processes: int, gpus: Sequence[str] = (), n_cores: int = 1) -> ProcessPoolExecutor:
    """Worker processes, which start when they are needed: submit to them within `starting_workers`.

    `gpus`: addresses of which each worker takes one for good.
    `n_cores`: share of the cores of each worker with a GPU.
    """
    check_main()
    spawn = multiprocessing.get_context("spawn")  # fork would copy locks held by threads of fsspec and Arrow
    addresses = None
    if gpus:
        addresses = spawn.SimpleQueue()
        for address in gpus:
            addresses.put(address)
    n_sharers = -(-len(gpus) // max(1, len(set(gpus))))
    return ProcessPoolExecutor(n_processes, mp_context=spawn, initializer=_begin, initargs=(addresses, n_cores, n_sharers))


def check_main() -> None:
    """Whether workers can be started: each imports the script that starts them once more.

    In a worker that is still importing it, work begun by the script lacks the guard: the worker ends without a word, and whoever waits for
    it says why (`why_broken`).

    Raises StageError if the script is no file, such as standard input.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # what multiprocessing itself looks at
        raise SystemExit(1)
    script = _main_script()
    if script and not os.path.exists(script):
        raise StageError(
            f"worker processes import the script that starts them, and {os.path.basename(script)} is no file; expected a script in a file; "
            f"save it, with what starts dedup {_GUARD}, and run the file"
        )


_GUARD = "under `if __name__ == '__main__':`"


def why_broken(n_done: int) -> str:
    """What to say of workers that died; `n_done`: tasks that had ended before."""
    memory = "most likely killed for lack of memory; lower engine.workers, then run the same command again: finished parts are kept"
    script = _main_script()
    if n_done or not script or multiprocessing.parent_process() is not None or _has_guard(script):
        return f"a worker process died, {memory}"
    return (
        f"the worker processes ended before their first task: each imports {os.path.basename(script)} once more, which must not start work "
        f"again; expected what starts dedup {_GUARD}, found no such line; put it there (if the script is right as it is: {memory})"
    )


def _main_script() -> str:
    """Path of the script that workers import as their main module; '' if there is none, as in a notebook, with -c or -m."""
    main = sys.modules.get("__main__")
    if getattr(main, "__spec__", None) is not None:
        return ""
    return str(getattr(main, "__file__", None) or "")


def _has_guard(script: str) -> bool:
    try:
        with open(script, encoding="utf-8", errors="replace") as file:
            return any(line.startswith("if") and "__name__" in line and "__main__" in line for line in file)
    except OSError:
        return False


def stop_pool(pool: ProcessPoolExecutor) -> None:
    """End the workers, even in the middle of a task; a second Ctrl-C waits until they are gone."""
    with _deferred_interrupts(), _unheard(getattr(pool, "_executor_manager_thread", None)):
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


@contextmanager
def _unheard(thread: threading.Thread | None) -> Iterator[None]:
    """Nothing is printed if a thread fails: the pool's own may stumble over the workers that are taken from it."""
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if args.thread is None or args.thread is not thread:
            before(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


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
