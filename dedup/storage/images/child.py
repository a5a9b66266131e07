"""The process that decodes, as its parent sees it: started, asked, watched. What they say to each other is in `decoder_process.py`."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import typing
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

import numpy as np

from dedup.errors import SampleError
from dedup.schemas import REJECT_REASONS
from dedup.storage.images.decode import DecodedImage
from dedup.storage.images.decoder_process import HEAD_BYTES, LENGTH, REQUEST, write_all
from dedup.storage.images.jail import Jail
from dedup.text import bytes_text

_START_S: Final = 120.0
_MOST_NAME: Final = 32  # characters of a format or date
_MOST_DETAIL: Final = 500  # characters

_MAIN: Final = "import sys; sys.path[:] = sys.argv[5:]; from dedup.storage.images.decoder_process import main; main()"
# no credentials: only what Python and the loader of libraries need
_KEPT: Final = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH")
_MALLOC: Final = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}  # glibc keeps what the next image needs
_ONE_THREAD: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "OPENCV_FOR_THREADS_NUM")


class CannotStart(Exception):
    """No process could be started, or it ended before it was ready."""


class Died(Exception):
    """The process is of no more use: it crashed, took too long or too much memory, or answered what no decoder answers."""

    def __init__(self, how: str, *, is_certain: bool = False) -> None:
        super().__init__(how)
        self.is_certain = is_certain  # the image that was decoded is to blame


class Child:
    """A process that decodes. The kernel ends it with the thread that started it.

    Parameters
    ----------
    function : str
        What it calls, such as ``package.module:function``, with the signature of `decode_image`.
    max_memory : int
        Bytes it may allocate.
    cpu_s, wall_s : float
        Seconds for one image: of its processor time, and in all.

    Raises
    ------
    CannotStart
        If it can't be started.
    """

    def __init__(self, function: str, max_memory: int, cpu_s: float, wall_s: float) -> None:
        self.max_memory, self._cpu_s, self._wall_s = max_memory, cpu_s, wall_s
        if not sys.executable or getattr(sys, "frozen", False):
            raise CannotStart("there is no Python interpreter to start")
        ours, theirs = socket.socketpair()
        self._socket, self.jail = ours, Jail()
        arguments = [str(os.getpid()), function, str(max_memory), str(cpu_s), *map(str, sys.path)]
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | _MALLOC | dict.fromkeys(_ONE_THREAD, "1")
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _MAIN, *arguments],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                    close_fds=True,
                )
        except OSError as error:
            ours.close()
            raise CannotStart(str(error)) from error

    def wait_until_ready(self) -> None:
        """Wait until it is jailed and has all it needs.

        Raises CannotStart if it ends before.
        """
        try:
            ready = self._head(time.monotonic() + _START_S)
            if "failed" in ready:
                raise CannotStart(str(ready["failed"])[:_MOST_DETAIL])
            self.jail = Jail(**ready["jail"])
        except BaseException as error:
            self.close()
            if isinstance(error, Died):
                raise CannotStart(f"it {error}") from error
            raise

    def ask(self, images: Sequence[bytes], max_pixels: int, min_side: int | None) -> Iterator[DecodedImage | SampleError]:
        """Decode images; answers come one by one, and all must be taken before the next question.

        Raises Died in place of the first answer that does not come.
        """
        deadline = time.monotonic() + self._wall_s
        lengths = b"".join(LENGTH.pack(len(data)) for data in images)
        try:
            self._socket.settimeout(self._wall_s)
            head = REQUEST.pack(len(images), max_pixels, min_side or 0) + lengths
            write_all(self._socket.sendmsg, [head, *images])
        except OSError as error:
            raise self._death(error) from error
        for _ in images:
            yield self._answer(deadline, max_pixels)
            deadline = time.monotonic() + self._wall_s

    def close(self) -> None:
        """End it."""
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def forget(self) -> None:
        """Leave it to the process that this one was forked from."""
        self._socket.close()

    def _answer(self, deadline: float, max_pixels: int) -> DecodedImage | SampleError:
        head = self._head(deadline)
        if "memory" in head:
            raise Died(f"took more than {bytes_text(self.max_memory)} of memory")
        if "raised" in head:
            raise Died(f"raised {str(head['raised'])[:_MOST_DETAIL]}", is_certain=True)
        try:
            if "reason" in head:
                return _error(head)
            return _image(head["values"] | self._arrays(head["arrays"], deadline, max_pixels), max_pixels)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise Died(f"gave an answer that is none ({type(error).__name__})") from error

    def _arrays(self, described: dict[str, Any], deadline: float, max_pixels: int) -> dict[str, np.ndarray[Any, Any]]:
        arrays, room = {}, 3 * max_pixels  # bytes that pixels can take
        for name, (type_name, shape) in described.items():
            dtype = np.dtype(str(type_name))
            n_bytes = math.prod(int(side) for side in shape) * dtype.itemsize
            if dtype.kind not in "biuf" or min(shape) < 1 or n_bytes > room:
                raise ValueError(f"an array {shape} of {dtype}")
            room -= n_bytes
            arrays[str(name)] = np.empty(shape, dtype)
            self._read_into(arrays[name].data.cast("B"), deadline)
        return arrays

    def _head(self, deadline: float) -> dict[str, Any]:
        text = bytearray(HEAD_BYTES)
        self._read_into(memoryview(text), deadline)
        try:
            head = json.loads(bytes(text).rstrip())
        except (ValueError, RecursionError) as error:
            raise Died("gave an answer that is none") from error
        if not isinstance(head, dict):
            raise Died("gave an answer that is none")
        return head

    def _read_into(self, view: memoryview, deadline: float) -> None:
        try:
            while view:
                self._socket.settimeout(max(0.001, deadline - time.monotonic()))
                n_read = self._socket.recv_into(view)
                if not n_read:
                    raise self._death(None)
                view = view[n_read:]
        except OSError as error:
            raise self._death(error) from error

    def _death(self, error: OSError | None) -> Died:
        """How it ended."""
        if isinstance(error, TimeoutError):
            return Died(f"took more than {self._wall_s:g} s")
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)  # its end of the socket closes a little before it is gone
        code = self._process.returncode
        if code is None:
            return Died("fell silent")
        if code >= 0:
            return Died(f"ended with exit code {code}")
        if -code == signal.SIGPROF:
            return Died(f"took more than {self._cpu_s:g} s of processor time", is_certain=True)
        try:
            name = signal.Signals(-code).name
        except ValueError:  # a signal for real-time programs
            name = str(-code)
        return Died(f"was ended by signal {name}")


def _error(head: dict[str, Any]) -> SampleError:
    reason, detail = head["reason"], str(head["detail"])[:_MOST_DETAIL]
    if reason not in REJECT_REASONS:
        raise ValueError("no reason of ours")
    return SampleError(reason, detail)


def _image(values: dict[str, Any], max_pixels: int) -> DecodedImage:
    """The image of an answer; the process may have been taken over, so what later code relies on is checked.

    Raises ValueError, TypeError or KeyError if it is none.
    """
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    image = DecodedImage(**values)
    for name, kind in _plain_fields().items():
        if type(values[name]) is not kind:
            raise TypeError(name)
    height, width, n_colors = image.pixels.shape
    left, top, right, bottom = (float(edge) for edge in image.box)
    is_sound = image.pixels.dtype == np.uint8 and n_colors == 3 and min(image.width, image.height) >= 1
    is_inside = 0 <= left < right <= width and 0 <= top < bottom <= height  # false for NaN
    is_sound &= len(image.format) <= _MOST_NAME and len(image.exif_date) <= _MOST_NAME and 0 <= image.jpeg_quality <= 100
    if not (is_sound and is_inside and image.width * image.height <= max_pixels):
        raise ValueError("no image")
    return image


@lru_cache
def _plain_fields() -> dict[str, type]:
    hints = typing.get_type_hints(DecodedImage)
    return {name: hint for name, hint in hints.items() if hint in (int, float, str, bool)}
