"""The tables of captions of a folder of images: the one that is given, or those that lie in it."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from dedup.errors import InputError
from dedup.storage.input.encodings import clean_name
from dedup.storage.input.paths import comparable, has_exact_rows, stem, unique_depths
from dedup.storage.input.tables import read_paths

# of the layout that `datasets` calls an image folder; of several in one folder the first that can be read counts
OWN_TABLES: Final = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


@dataclass(frozen=True)
class FolderTable:
    """A table of captions, and the images that it may name."""

    url: str
    folder: str = ""  # relative path, with a '/' at its end, of the folder whose images it may name; '' for all
    has_exact: bool = False  # whether it has a row that names one of these exactly


def nearest(name: str, tables: Mapping[str, FolderTable]) -> FolderTable | None:
    """The table of the folder that a file lies in, or of the next one above it.

    `tables`: by `folder`.

    Examples
    --------
    >>> tables = {"": FolderTable("x.csv"), "a/": FolderTable("a/y.csv", "a/")}
    >>> nearest("a/b/1.jpg", tables).url, nearest("c/1.jpg", tables).url
    ('a/y.csv', 'x.csv')
    """
    place = len(name)
    while (place := name.rfind("/", 0, place)) >= 0:
        if (table := tables.get(name[: place + 1])) is not None:
            return table
    return tables.get("")


def by_table(images: Iterable[str], tables: Sequence[FolderTable]) -> dict[FolderTable, list[str]]:
    """The images that each table may name, in their order."""
    of_folder = {table.folder: table for table in tables}
    found: dict[FolderTable, list[str]] = {}
    for name in images:
        if (table := nearest(name, of_folder)) is not None:
            found.setdefault(table, []).append(name)
    return found


def own_tables(folder: str, images: Sequence[str], names: Iterable[str], refused: dict[str, str]) -> list[FolderTable]:
    """The tables that a folder brings with it, at most one for each of its folders.

    `images`, `names`: relative paths of its images, and of files called like one of `OWN_TABLES`.
    `refused`: gains those that can't be read as tables of captions, each with the reason.
    """
    candidates: dict[str, list[str]] = {}
    for name in names:
        candidates.setdefault(name[: name.rfind("/") + 1], []).append(name)
    readable = {inner: _first_that_can_be_read(folder, of_folder, refused) for inner, of_folder in candidates.items()}
    paths = {inner: found for inner, found in readable.items() if found is not None}
    tables = [FolderTable(f"{folder}/{name}", inner) for inner, (name, _) in paths.items()]
    return [
        FolderTable(table.url, table.folder, _has_exact(paths[table.folder][1], folder, table, of_table))
        for table, of_table in by_table(images, tables).items()
    ]


def given_table(url: str, folder: str, images: Sequence[str]) -> FolderTable:
    """The table that is given as `input.captions`.

    Raises InputError if it is none of captions.
    """
    return FolderTable(url, has_exact=_has_exact(read_paths(url), folder, FolderTable(url), images))


def depths_of(images: Sequence[str], tables: Sequence[FolderTable]) -> tuple[tuple[int, int], ...]:
    """By how many last components of its path each image differs from all others that its table may name: with suffix, and without.

    (0, 0) for images without a table.
    """
    depths: dict[str, tuple[int, int]] = {}
    for table, of_table in by_table(images, tables).items():
        names = [comparable(clean_name(name[len(table.folder) :])) for name in of_table]
        depths |= zip(of_table, zip(unique_depths(names), unique_depths([stem(name) for name in names]), strict=True), strict=True)
    return tuple(depths.get(name, (0, 0)) for name in images)


def _first_that_can_be_read(folder: str, names: Iterable[str], refused: dict[str, str]) -> tuple[str, pa.ChunkedArray] | None:
    for name in sorted(names, key=lambda name: OWN_TABLES.index(posixpath.basename(name))):
        try:
            if len(paths := read_paths(f"{folder}/{name}")):
                return name, paths
            refused[name] = "it has no rows"
        except InputError as error:
            refused[name] = str(error).removeprefix(f"input.captions={folder}/{name} ").partition("; expected")[0]
    return None


def _has_exact(paths: pa.ChunkedArray, folder: str, table: FolderTable, images: Sequence[str]) -> bool:
    inside = f"{folder}/{table.folder}".rstrip("/")
    return has_exact_rows(paths, inside, (name[len(table.folder) :] for name in images))
