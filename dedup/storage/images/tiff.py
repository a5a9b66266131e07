"""TIFF by its directories: which pages are pages, and what kind of numbers they hold."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from dedup.storage.images.frames import MAX_COUNTED

_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _BITS, _MOST, _FORMAT = 254, 255, 256, 257, 258, 281, 339
_SAMPLES: Final = 277
_WANTED: Final = frozenset({_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _BITS, _SAMPLES, _MOST, _FORMAT})
_TYPES: Final = {1: "B", 3: "H", 4: "I", 16: "Q"}  # unsigned integers, by their number in TIFF
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_SAME_ASPECT: Final = 0.02
_MAX_ENTRIES: Final = 2**18  # of all directories together: they may overlap, and claim the same bytes again and again
_KINDS: Final = {1: "unsigned integers", 2: "signed integers", 3: "floats", 5: "complex integers", 6: "complex floats"}
FLOAT: Final = 3


@dataclass(frozen=True, slots=True)
class Page:
    """One directory of a TIFF."""

    number: int  # in the order of the file
    subfile: int  # NewSubfileType
    width: int
    height: int
    n_bits: int  # of a sample
    sample_format: int  # 1 unsigned, 2 signed, 3 float
    n_samples: int  # of a pixel
    greatest: int  # MaxSampleValue; 0 = not said

    @property
    def n_pixels(self) -> int:
        """Width times height."""
        return self.width * self.height

    def describe(self) -> str:
        """What the pixels are: ``3 x 16 bits a pixel, floats``."""
        kind = _KINDS.get(self.sample_format, f"sample format {self.sample_format}")
        return f"{self.n_samples} x {self.n_bits} bits a pixel, {kind}"


def read_pages(data: bytes) -> list[Page]:
    """The directories of a TIFF in its chain, up to the first that is broken or was there before."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = len(data) > 2 and 43 in data[2:4]
    word, entry_size, count_type = ("Q", 20, "Q") if is_big else ("I", 12, "H")
    pages: list[Page] = []
    seen: set[int] = set()
    try:
        (at,) = struct.unpack_from(order + word, data, 8 if is_big else 4)
        n_seen = 0
        while at and at not in seen and len(pages) < MAX_COUNTED and n_seen < _MAX_ENTRIES:
            seen.add(at)
            (n_entries,) = struct.unpack_from(order + count_type, data, at)
            first = at + struct.calcsize(order + count_type)
            last = first + n_entries * entry_size
            places = range(first, min(last, len(data) - entry_size + 1), entry_size)
            n_seen += len(places)
            tags = _tags(data, order, is_big, places[:_MAX_ENTRIES])
            old = tags.get(_OLD_SUBFILE, 1)
            pages.append(
                Page(
                    len(pages), tags.get(_SUBFILE, _REDUCED if old == 2 else 0), tags.get(_WIDTH, 0), tags.get(_HEIGHT, 0),
                    tags.get(_BITS, 1), tags.get(_FORMAT, 1), tags.get(_SAMPLES, 1), tags.get(_MOST, 0),
                )
            )  # fmt: skip
            (at,) = struct.unpack_from(order + word, data, last)
    except (struct.error, OverflowError):
        pass
    return pages


def _tags(data: bytes, order: str, is_big: bool, places: range) -> dict[int, int]:
    """The first number of each wanted tag."""
    found = {}
    for place in places:
        tag, kind = struct.unpack_from(order + "HH", data, place)
        if tag in _WANTED and kind in _TYPES:
            n_values, at, room = (
                *struct.unpack_from(order + ("Q" if is_big else "I"), data, place + 4),
                place + 8 + 4 * is_big,
                4 + 4 * is_big,
            )
            if n_values * struct.calcsize("<" + _TYPES[kind]) > room:
                (at,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, at)
            (found[tag],) = struct.unpack_from(order + _TYPES[kind], data, at)
    return found


def full_pages(pages: list[Page]) -> list[Page]:
    """The pages that are pictures of their own: no reduced copies (of a pyramid) and no masks, whether they are marked so or not.

    Of a file with nothing else, the largest. Unmarked copies are pages of the same shape and at most half the sides of the first.
    """
    marked = [page for page in pages if not page.subfile & (_REDUCED | _MASK)]
    if not marked:
        return [max(pages, key=lambda page: page.n_pixels)] if pages else []
    first = marked[0]
    return [first, *(page for page in marked[1:] if not _is_reduced(page, first))]


def _is_reduced(page: Page, first: Page) -> bool:
    """Whether a page has the shape of the first and at most half its sides."""
    if not page.n_pixels or 2 * page.width > first.width + 2 or 2 * page.height > first.height + 2:
        return False
    return abs(page.width * first.height / (page.height * first.width) - 1) <= _SAME_ASPECT + 1 / min(page.width, page.height)
