"""What every input source yields: raw samples, and how the reading of a shard ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from dedup.errors import SampleError

IMAGE_SUFFIXES: Final = frozenset({"jpg", "jpeg", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff"})
UNSUPPORTED_SUFFIXES: Final = frozenset({"avif", "avifs", "heic", "heif", "jxl", "svg", "jp2", "j2k", "ico", "psd"})
ShardStatus = Literal["ok", "truncated", "unreadable"]


@dataclass(frozen=True, slots=True)
class RawSample:
    r"""One sample as the shard has it, nothing decoded."""

    # member name up to the first dot of its base name, folder included; the relative path in a folder of images. Bytes that are no
    # UTF-8 are written as ``\xNN``.
    key: str
    shard: str  # URL of the tar; of the folder, ending with '/', for a folder of images
    image: bytes | None = None  # bytes or None; the encoded image; None if `error` is set
    image_name: str | None = None  # name of the image's member as the tar has it
    byte_offset: int | None = None  # where the image's bytes start in the file `shard`; None in a compressed tar
    n_bytes: int = 0  # size of the encoded image; 0 where there is none
    # caption, url: valid UTF-8 without NUL
    caption: str | None = None
    url: str | None = None
    # a value of the type `dedup.schemas.CARRIED_TYPES` gives, or None, for each name of `input.carry`
    carried: dict[str, object] = field(default_factory=dict)
    error: SampleError | None = None  # why the sample can't be used


class SampleReader:
    """Iterates over a shard's samples, once; says afterwards how that ended.

    Parameters
    ----------
    start : callable
        Given this reader, yields the samples and calls `fail` if the shard does not end as it should.

    Attributes
    ----------
    status : {"ok", "truncated", "unreadable"}
        Final once the iteration has ended. After "truncated" the samples before the break have been yielded.
        After "unreadable" some may have been, if a connection broke; a caller should not keep them.
    error : str or None
        Why the status is not ok; with status ok, a note that a sidecar is missing or broken.
    is_reachable : bool
        False if the bytes could not be fetched (missing file, no permission, connection broken), so that another try
        may help; True if they were fetched but are no tar.

    Examples
    --------
    >>> reader = SampleReader(lambda reader: iter([RawSample("000", "a.tar", b"...")]))
    >>> [sample.key for sample in reader], reader.status
    (['000'], 'ok')
    """

    def __init__(self, start: Callable[[SampleReader], Iterator[RawSample]]) -> None:
        self.status: ShardStatus = "ok"
        self.error: str | None = None
        self.is_reachable = True
        self._samples = start(self)

    def __iter__(self) -> Iterator[RawSample]:
        return self._samples

    def fail(self, status: ShardStatus, error: str, *, is_reachable: bool = True) -> None:
        """Note how the reading ended; called by the source."""
        self.status, self.error, self.is_reachable = status, error, is_reachable


def one_line(error: BaseException) -> str:
    r"""Bring an exception of another library to one line of at most 300 characters.

    Examples
    --------
    >>> one_line(ValueError("a\n  b"))
    'ValueError: a b'
    """
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__


def file_suffix(name: str) -> str:
    """Lower-cased letters behind the last dot of the base name; '' if there is no dot.

    Examples
    --------
    >>> file_suffix("a.b/photo.v2.JPG"), file_suffix("a.b/photo")
    ('jpg', '')
    """
    return name.rpartition("/")[2].rpartition(".")[2].lower() if "." in name.rpartition("/")[2] else ""
