"""Decoding in a process of its own: a bug in a decoder costs one image, not the run, the machine or the credentials.

Images come from strangers, and decoders are written in C. The bytes go to a process that was jailed before it saw any (`jail.py`); pixels
come back. If it crashes, or takes too much time or memory, that image is rejected as `decoder_crashed`, and a new process goes on.
"""

from __future__ import annotations

import atexit
import math
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from queue import SimpleQueue
from typing import Final

from dedup.config.keys import MAX_IMAGE_BYTES, MAX_PIXELS
from dedup.errors import ResourceError, SampleError
from dedup.storage.images.child import CannotStart, Child, Died
from dedup.storage.images.decode import DecodedImage
from dedup.storage.images.decoder_process import imported
from dedup.storage.images.jail import Jail
from dedup.storage.input.kinds import image_kind
from dedup.text import bytes_text

BATCH: Final = 8  # images worth sending together
BATCH_BYTES: Final = 4 * 1024 * 1024  # from which no further image is added to a batch

_DECODE: Final = "dedup.storage.images.decode:decode_image"
_CPU_S: Final = 60.0  # of processor time
_WALL_S: Final = 600.0  # of an image that waits rather than computes
_BYTES_PER_PIXEL: Final = 40
_MEMORY: Final = 128 * 1024 * 1024  # beside pixels and bytes
_COPIES: Final = 3  # of the encoded images, at most


class Decoder:
    """Decodes images in a process of its own, which is started when the first comes. Not thread-safe; close it, or use it as a context.

    Parameters
    ----------
    function : str
        What decodes, as ``package.module:function`` with the signature of `dedup.storage.images.decode.decode_image`.
    cpu_s, wall_s : float
        Seconds for one image: of processor time, and in all.
    memory_per_pixel : int
        Bytes of memory that decoding may take for each pixel of `max_pixels`, beside a constant.

    Examples
    --------
    >>> import io
    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (40, 30)).save(file, "PNG")
    >>> with Decoder() as decoder:
    ...     decoder.decode(file.getvalue(), max_pixels=10_000).pixels.shape
    (30, 40, 3)
    """

    def __init__(
        self, function: str = _DECODE, *, cpu_s: float = _CPU_S, wall_s: float = _WALL_S, memory_per_pixel: int = _BYTES_PER_PIXEL
    ) -> None:
        self._function, self._cpu_s, self._wall_s, self._memory_per_pixel = function, cpu_s, wall_s, memory_per_pixel
        self._child: Child | _Here | None = None

    def decode(self, data: bytes, *, max_pixels: int, min_side: int | None = None) -> DecodedImage:
        """Decode an image.

        `data`, `max_pixels`, `min_side`: as `decode_image` takes them.
        Raises SampleError as `decode_image` does, or with the reason decoder_crashed.
        Raises ResourceError if a new process is needed and can't be started.
        """
        (outcome,) = self.decode_each([data], max_pixels=max_pixels, min_side=min_side)
        if isinstance(outcome, SampleError):
            raise outcome
        return outcome

    def decode_each(
        self, images: Sequence[bytes], *, max_pixels: int, min_side: int | None = None
    ) -> Generator[DecodedImage | SampleError, None, None]:
        """Decode images that are sent together: up to `BATCH`, of about `BATCH_BYTES`.

        Yields the outcome of each in order; errors are as of `decode`.
        """
        n_done, n_together = 0, len(images)
        while n_done < len(images):
            try:
                for outcome in self._ask(images[n_done : n_done + n_together], max_pixels, min_side):
                    n_done += 1
                    yield outcome
            except Died as death:
                if n_together > 1:  # small answers come together: any image without one may be to blame
                    n_together = 1
                    continue
                outcome = self._alone(images[n_done], max_pixels, min_side, death)
                n_done += 1
                yield outcome

    def jail(self, *, max_pixels: int) -> Jail | None:
        """What is in force in its process, which is started if need be; None if images are decoded in this one."""
        child = self._started(max_pixels, 0)
        return child.jail if isinstance(child, Child) else None

    @property
    def trouble(self) -> str:
        """Why no process could be started, so that images are decoded in this one; '' if all is well."""
        return self._child.why if isinstance(self._child, _Here) else ""

    def close(self) -> None:
        """End the process."""
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def forget(self) -> None:
        """Leave the process to the one that this was forked from."""
        child, self._child = self._child, None
        if child is not None:
            child.forget()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _alone(self, data: bytes, max_pixels: int, min_side: int | None, death: Died) -> DecodedImage | SampleError:
        """The outcome of an image during which the process died: only if it does so again, on its own in a new process, is it to blame."""
        if not death.is_certain:
            try:
                (outcome,) = self._ask([data], max_pixels, min_side)
                return outcome
            except Died as again:
                death = again
        return SampleError("decoder_crashed", f"{image_kind(data) or 'image'} of {len(data)} bytes: the decoder {death}")

    def _ask(self, images: Sequence[bytes], max_pixels: int, min_side: int | None) -> Iterator[DecodedImage | SampleError]:
        """One exchange; a process that did not get to its end is replaced next time."""
        child, n_left = self._started(max_pixels, sum(map(len, images))), len(images)
        try:
            for outcome in child.ask(images, max_pixels, min_side):
                n_left -= 1
                yield outcome
        finally:
            if n_left:
                self.close()

    def _started(self, max_pixels: int, n_bytes: int) -> Child | _Here:
        need = _MEMORY + self._memory_per_pixel * max_pixels + _COPIES * max(n_bytes, MAX_IMAGE_BYTES)
        if self._child is not None and self._child.max_memory < need:
            self.close()
        if self._child is None:
            try:
                self._child = _process.start(self._function, need, self._cpu_s, self._wall_s)
            except CannotStart as error:
                if _process.has_started:  # the image that ended the last one must not be decoded in this process
                    raise ResourceError(
                        f"no further process to decode images in can be started ({error}); run the same command again"
                    ) from error
                self._child = _Here(self._function, str(error))
        return self._child


class _Here:
    """Stands in for a child where processes can't be started."""

    max_memory = math.inf

    def __init__(self, function: str, why: str) -> None:
        self._decode, self.why = imported(function), why

    def ask(self, images: Sequence[bytes], max_pixels: int, min_side: int | None) -> Iterator[DecodedImage | SampleError]:
        for data in images:
            try:
                outcome: DecodedImage | SampleError = self._decode(data, max_pixels=max_pixels, min_side=min_side)
            except SampleError as error:
                outcome = error
            yield outcome

    def close(self) -> None:
        """Nothing to end."""

    forget = close


class _Process:
    """What all threads of this process share: decoders that nobody uses now, and the thread that starts their processes.

    The kernel ends a child with the thread that started it: this one lives as long as the process.
    """

    def __init__(self) -> None:
        self.idle: list[Decoder] = []
        self.has_started = False
        self._orders: SimpleQueue[tuple[Future[Child], tuple[str, int, float, float]]] = SimpleQueue()
        self._thread = threading.Thread(target=self._start_children, name="decoder", daemon=True)
        self._beginning = threading.Lock()

    def start(self, function: str, max_memory: int, cpu_s: float, wall_s: float) -> Child:
        """A child that is ready.

        Raises CannotStart.
        """
        with self._beginning:
            if not self._thread.is_alive():
                self._thread.start()
        started: Future[Child] = Future()
        self._orders.put((started, (function, max_memory, cpu_s, wall_s)))
        child = started.result()
        child.wait_until_ready()
        self.has_started = True
        return child

    def _start_children(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children inherit it: Ctrl-C reaches the whole process group
        while True:
            started, order = self._orders.get()
            try:
                started.set_result(Child(*order))
            except BaseException as error:
                started.set_exception(error)

    def close(self) -> None:
        while self.idle:
            self.idle.pop().close()

    def forget(self) -> None:
        while self.idle:
            self.idle.pop().forget()


_process = _Process()


def _after_fork() -> None:
    """Begin anew in a forked process, which has no threads, and leave the decoders to its parent."""
    global _process
    _process.forget()
    _process = _Process()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(lambda: _process.close())


@contextmanager
def _decoder() -> Iterator[Decoder]:
    """A decoder for a moment: one that is idle, or else a new one."""
    process = _process
    try:
        decoder = process.idle.pop()
    except IndexError:
        decoder = Decoder()
    try:
        yield decoder
    finally:
        process.idle.append(decoder)


def decode_isolated(data: bytes, *, max_pixels: int, min_side: int | None = None) -> DecodedImage:
    """Decode an image as `decode_image` does, in a process of its own that later calls use too; for any thread.

    Raises SampleError, ResourceError as `Decoder.decode`.
    """
    with _decoder() as decoder:
        return decoder.decode(data, max_pixels=max_pixels, min_side=min_side)


def decode_each_isolated(
    images: Sequence[bytes], *, max_pixels: int, min_side: int | None = None
) -> Generator[DecodedImage | SampleError, None, None]:
    """Decode images that are sent together, up to `BATCH` of about `BATCH_BYTES`; for any thread.

    Yields the outcome of each in order. A caller that does not take all of them closes the iterator.
    Raises ResourceError as `Decoder.decode`.
    """
    with _decoder() as decoder, closing(decoder.decode_each(images, max_pixels=max_pixels, min_side=min_side)) as outcomes:
        yield from outcomes


def where_decoded(max_pixels: int = MAX_PIXELS) -> str:
    """How well this machine shields itself from images, for people to read.

    Examples
    --------
    >>> where_decoded().partition(",")[0]
    'own process'
    """
    with _decoder() as decoder:
        jail = decoder.jail(max_pixels=max_pixels)
        return f"in the same process: {decoder.trouble}" if jail is None else f"own process, {describe(jail)}"


def why_not_isolated() -> str:
    """Why this process decodes images itself; '' as long as it does not."""
    return next((decoder.trouble for decoder in _process.idle if decoder.trouble), "")


def describe(jail: Jail, cpu_s: float = _CPU_S) -> str:
    """What is in force, and what the platform lacks.

    Examples
    --------
    >>> describe(Jail(has_filter=True, landlock=6, max_memory=2_100_000_000))
    'no network, no files, no other programs, 2.1 GB of memory, 60 s per image'
    >>> describe(Jail(landlock=2, max_memory=2_100_000_000))
    'no files, 2.1 GB of memory, 60 s per image; not available here: seccomp (no network, no other programs)'
    """
    have: list[str] = []
    lack: list[str] = []
    if jail.has_filter:
        have += ["no network", "no files", "no other programs"]
    else:
        (have if jail.landlock else lack).append("no files" if jail.landlock else "Landlock (no files)")
        lack.append("seccomp (no network, no other programs)")
    if jail.max_memory:
        have.append(f"{bytes_text(jail.max_memory)} of memory")
    else:
        lack.append("a limit on memory")
    text = ", ".join([*have, f"{cpu_s:g} s per image"])
    return f"{text}; not available here: {', '.join(lack)}" if lack else text
