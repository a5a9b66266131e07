"""The process that decodes: started by `isolated.py`, jailed before its first image, and ended with the process that started it.

Its descriptor 0 is a socket to the parent. A request is a `REQUEST`, the length of each image, then the images. Each is answered in turn by
a JSON object of `HEAD_BYTES` and the arrays it names. Nothing is pickled: an answer may come from a process that an image
has taken over.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from functools import partial
from importlib import import_module
from typing import Any, Final

import numpy as np

from dedup.errors import SampleError
from dedup.storage.images import formats, jail

REQUEST: Final = struct.Struct("<QQQ")  # images, max_pixels, min_side (0 = none)
LENGTH: Final = struct.Struct("<Q")
HEAD_BYTES: Final = 2048  # of an answer: JSON, padded with blanks

_MOST_TEXT: Final = 128  # characters of a text that would not fit otherwise: 12 bytes each in JSON at worst
_TOGETHER: Final = 600_000  # bytes of answers from which they are sent
_MOST_PARTS: Final = 500  # written together; the kernel takes about a thousand

# what decoders import when they first need it: no file can be opened later
_NEEDED_LATER = (
    *(f"PIL.{name}" for name in ("ExifTags", "IcoImagePlugin", "ImageColor", "ImageFilter", "ImagePalette", "MpoImagePlugin", "TiffTags")),
    *(f"encodings.{name}" for name in ("ascii", "cp1252", "latin_1", "utf_16", "utf_16_be", "utf_16_le", "utf_32")),
    "copy",
)


def main() -> None:
    """Answer requests until the parent is gone; ``sys.argv``: parent's process id, function, bytes of memory, seconds per image."""
    parent, function, max_memory, cpu_s = sys.argv[1:5]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent decides
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    jail.end_with_parent(int(parent))
    try:
        decode = imported(function)
        for name in _NEEDED_LATER:
            with suppress(ImportError):
                import_module(name)
        formats.load_all()
        ready = {"jail": asdict(jail.enter(int(max_memory)))}
    except BaseException as error:  # told to the parent, which has no other way to know
        os.writev(0, _answer({"failed": f"{type(error).__name__}: {error}"}))
        return
    os.writev(0, _answer(ready))
    while (head := _read(REQUEST.size)) is not None:
        n_images, max_pixels, min_side = REQUEST.unpack(head)
        _serve(decode, n_images, float(cpu_s), {"max_pixels": max_pixels, "min_side": min_side or None})


def imported(function: str) -> Callable[..., Any]:
    """The function of a name such as ``package.module:function``."""
    module, _, name = function.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


def _serve(decode: Callable[..., Any], n_images: int, cpu_s: float, options: dict[str, Any]) -> None:
    # all is read before the first answer: parent and child would otherwise wait for each other, both writing
    lengths = [LENGTH.unpack(_needed(LENGTH.size))[0] for _ in range(n_images)]
    images = [_needed(length) for length in lengths]
    images.reverse()
    parts: list[bytes | memoryview] = []  # sent together: to wake the parent for every small answer costs a tenth of decoding
    while images:
        data = images.pop()
        signal.setitimer(signal.ITIMER_PROF, cpu_s)  # of processor time: a busy machine makes nobody a suspect
        head, arrays = _outcome(decode, data, options)
        signal.setitimer(signal.ITIMER_PROF, 0)
        parts += _answer(head, arrays)
        if not images or sum(map(len, parts)) >= _TOGETHER:
            write_all(partial(os.writev, 0), parts)


def _outcome(decode: Callable[..., Any], data: bytes, options: dict[str, Any]) -> tuple[dict[str, Any], list[np.ndarray[Any, Any]]]:
    """The answer for one image, and its arrays."""
    try:
        image = decode(data, **options)
    except SampleError as error:
        if _ran_out_of_memory(error):
            return {"memory": True}, []
        return {"reason": error.reason, "detail": error.detail}, []
    except MemoryError:
        return {"memory": True}, []
    except Exception as error:
        return {"raised": " ".join(f"{type(error).__name__}: {error}".split())}, []
    values = {field.name: getattr(image, field.name) for field in fields(image)}
    arrays = {name: np.ascontiguousarray(value) for name, value in values.items() if isinstance(value, np.ndarray)}
    described = {name: [array.dtype.str, array.shape] for name, array in arrays.items()}
    return {"values": {name: value for name, value in values.items() if name not in arrays}, "arrays": described}, list(arrays.values())


def _ran_out_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__
    return False


def _answer(head: dict[str, Any], arrays: Sequence[np.ndarray[Any, Any]] = ()) -> list[bytes | memoryview]:
    text = json.dumps(head).encode()
    if len(text) > HEAD_BYTES:
        text = json.dumps({name: value[:_MOST_TEXT] if isinstance(value, str) else value for name, value in head.items()}).encode()
    return [text.ljust(HEAD_BYTES), *(array.data.cast("B") for array in arrays)]


def write_all(write: Callable[[list[bytes | memoryview]], int], parts: list[bytes | memoryview]) -> None:
    """Write all of some parts, and take them from the list, by a function that may write less and says how much."""
    while parts:
        n_written = write(parts[:_MOST_PARTS])
        while parts and n_written >= len(parts[0]):
            n_written -= len(parts.pop(0))
        if parts:
            parts[0] = memoryview(parts[0])[n_written:]


def _needed(n_bytes: int) -> bytes:
    data = _read(n_bytes)
    if data is None:
        os._exit(0)
    return data


def _read(n_bytes: int) -> bytes | None:
    """So many bytes from the parent; None if it is gone."""
    data: bytes | None = sys.stdin.buffer.read(n_bytes)
    return data if data is not None and len(data) == n_bytes else None
