"""Which rows of a table belong to which images of a folder, by paths that may be written differently on the two sides.

A row belongs to an image if its path is the image's, relative to the folder or absolute; else if the path and the image's have the last
components in common, more than with any other image of the folder, and no other path of the table has as many in common with the image.
Where some row names an image exactly, the table starts from the same folder: then the whole path has to be the end of the image's.
Paths without the suffix of an image are compared with the images' paths without theirs.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from dedup.storage.input.encodings import clean_name
from dedup.storage.input.samples import IMAGE_SUFFIXES

_HAS_SUFFIX: Final = rf"(?i)\.({'|'.join(sorted(IMAGE_SUFFIXES))})$"
# in this order, for Arrow and for Python alike; only for comparison
_REWRITES: Final = ((r"\\", "/"), (r"^(file|local)://", ""), (r"/+(\./+)*", "/"), (r"^(\./)+", ""))


def comparable(path: str) -> str:
    r"""A path as it is compared: ``/`` for ``\``, without ``./``, in Unicode's form NFC.

    Examples
    --------
    >>> comparable(".\\sub\\a.jpg"), comparable("/data//sub/./a.jpg"), comparable("Mu\u0308ller.jpg") == "M\u00fcller.jpg"
    ('sub/a.jpg', '/data/sub/a.jpg', True)
    """
    for pattern, new in _REWRITES:
        path = re.sub(pattern, new, path)
    return unicodedata.normalize("NFC", path)


def comparable_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """`comparable` for a column of strings."""
    for pattern, new in _REWRITES:
        column = pc.replace_substring_regex(column, pattern, new)
    return pc.utf8_normalize(column, "NFC")


def unique_depths(names: Sequence[str]) -> list[int]:
    """How many of its last components tell each path from all others; 0 where another path is the same.

    `names`: relative paths, as `comparable` gives them.

    Complexity: O(n depth).

    Examples
    --------
    >>> unique_depths(["train/a.jpg", "val/a.jpg", "b.jpg", "a.jpg"])
    [2, 2, 1, 0]
    """
    depths = [0] * len(names)
    pending: Sequence[int] = range(len(names))
    depth = 1
    while pending:
        ends = [_end(names[place], depth) for place in pending]
        n_of_end = Counter(ends)
        shared = []
        for place, end in zip(pending, ends, strict=True):
            if n_of_end[end] == 1:
                depths[place] = depth
            elif len(end) < len(names[place]):  # else the whole path ends another's
                shared.append(place)
        pending, depth = shared, depth + 1
    return depths


def _end(path: str, depth: int) -> str:
    """The last components of a path."""
    start = len(path)
    for _ in range(depth):
        start = path.rfind("/", 0, start)
        if start < 0:
            return path
    return path[start + 1 :]


def stem(path: str) -> str:
    """A path without the suffix of an image.

    Examples
    --------
    >>> stem("a.b/c.v2.JPG")
    'a.b/c.v2'
    """
    return posixpath.splitext(path)[0]


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """How many components at the start are the same."""
    return next((n for n, (left, right) in enumerate(zip(a, b, strict=False)) if left != right), min(len(a), len(b)))


@dataclass
class Joined:
    """Which rows belong to which images."""

    rows: dict[str, list[int]] = field(default_factory=dict)  # image to its rows, in the order of the table
    ambiguous: set[str] = field(default_factory=set)  # images that several paths of the table name equally well


def join_rows(
    paths: pa.ChunkedArray,
    folder: str,
    images: Mapping[str, tuple[int, int]],
    *,
    has_exact: bool,
    spelling: Callable[[str], str] = comparable,
) -> Joined:
    """Find the rows of some images.

    `paths`: the table's paths, as `comparable_column` gives them; may be null. Filtered in Arrow: no Python object is made of a row that
    belongs to none of the images.
    `folder`: its absolute path or URL.
    `images`: relative paths, each with its `unique_depths` among all images of the folder, with and without suffix.
    `has_exact`: whether any row names an image of the folder exactly.
    `spelling`: gives a path as it is compared.
    """
    joined = Joined()
    root = spelling(folder).rstrip("/") + "/"
    names = {image: spelling(image) for image in images}
    exact = {whole: image for image, name in names.items() for whole in (name, root + name)}
    for row, image in _matches(paths, exact):
        joined.rows.setdefault(image, []).append(row)
    missing = {image: depths for image, depths in images.items() if image not in joined.rows}
    if missing:
        by_name = {image: (names[image], whole) for image, (whole, _) in missing.items() if whole}
        _join_ends(paths, root, by_name, joined, is_rooted=has_exact)
    missing = {image: depths for image, depths in missing.items() if image not in joined.rows and image not in joined.ambiguous}
    if missing:
        keys = pc.if_else(pc.match_substring_regex(paths, _HAS_SUFFIX), pa.scalar(None, pa.string()), paths)
        by_stem = {image: (stem(names[image]), own) for image, (_, own) in missing.items() if own}
        _join_ends(keys, root, by_stem, joined, is_rooted=has_exact)
    return joined


def _matches(column: pa.ChunkedArray, wanted: Mapping[str, str]) -> Iterable[tuple[int, str]]:
    """Row numbers in which one of the wanted spellings stands, with what it means."""
    spellings = list(wanted)
    found = pc.index_in(column, value_set=pa.array(spellings, pa.string()))
    rows = pc.indices_nonzero(pc.is_valid(found))
    return ((row, wanted[spellings[place]]) for row, place in zip(rows.to_pylist(), found.take(rows).to_pylist(), strict=True))


def has_exact_rows(paths: pa.ChunkedArray, folder: str, images: Iterable[str]) -> bool:
    """Whether any of the table's paths is that of an image, relative or absolute, with or without its suffix."""
    root = comparable(folder).rstrip("/") + "/"
    names = {name for image in images for whole in [comparable(clean_name(image))] for name in (whole, stem(whole))}
    relative = pc.if_else(pc.starts_with(paths, root), pc.utf8_slice_codeunits(paths, len(root)), paths)
    return bool(pc.any(pc.is_in(relative, value_set=pa.array(sorted(names), pa.string()))).as_py())


def _join_ends(paths: pa.ChunkedArray, root: str, images: Mapping[str, tuple[str, int]], joined: Joined, *, is_rooted: bool) -> None:
    """Join images with paths that end alike; `images`: their name for the comparison, and how many last components are theirs alone."""
    claims: dict[str, dict[str, list[int]]] = {}  # image to the paths that end like it, with their rows
    for depth in sorted({depth for _, depth in images.values()}):
        ends = {_end(name, depth): image for image, (name, own) in images.items() if own == depth}
        # a shorter path stays whole, and has too few components to be one of the ends
        last = pc.replace_substring_regex(paths, rf"^.*/((?:[^/]+/){{{depth - 1}}}[^/]+)$", r"\1")
        matches = list(_matches(last, ends))
        found = paths.take(pa.array([row for row, _ in matches], pa.int64())).to_pylist()
        for (row, image), path in zip(matches, found, strict=True):
            claims.setdefault(image, {}).setdefault(path, []).append(row)
    for image, by_path in claims.items():
        name = images[image][0]
        n_own, whole = name.count("/") + 1, (root + name).split("/")[::-1]
        lengths = {path: _common(path.split("/")[::-1], whole) for path in by_path}
        longest = max(lengths.values())
        best = [path for path, length in lengths.items() if length == longest]
        if len(best) > 1:
            joined.ambiguous.add(image)
        # a base name alone is not enough where both sides have folders, and these differ
        elif longest >= (n_path := best[0].strip("/").count("/") + 1) or (not is_rooted and longest >= min(2, n_own, n_path)):
            joined.rows[image] = by_path[best[0]]
