"""Sources of the base that lie elsewhere now: found again by name and content, or by the prefixes that `base.moved` gives."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from dedup.contracts import JsonDict
from dedup.errors import ConfigError
from dedup.storage.input.content import content_stamp
from dedup.storage.input.published_rows import EmbeddingFile
from dedup.storage.input.sources import FolderPart
from dedup.storage.urls import absolute, filesystem, open_binary

Source = str | FolderPart | EmbeddingFile  # a tar, some images of a folder, or rows of embeddings

_THREADS: Final = 32  # a remote file system answers slowly, but many requests at a time


@dataclass(frozen=True)
class Moves:
    """Old places with the new ones; picklable."""

    exact: Mapping[str, str] = field(default_factory=dict)  # URLs of sources
    prefixes: tuple[tuple[str, str], ...] = ()  # folders or files, without a '/' at the end
    namesakes: tuple[str, ...] = ()  # sources of the input with the names of sources that are gone, but other contents

    def __bool__(self) -> bool:
        return bool(self.exact or self.prefixes)

    def place(self, url: str) -> str:
        """Where it lies now.

        >>> Moves(prefixes=(("/old", "/new"),)).place("/old/a.tar"), Moves(prefixes=(("/old", "/new"),)).place("/older/a.tar")
        ('/new/a.tar', '/older/a.tar')
        """
        if url in self.exact:
            return self.exact[url]
        for old, new in self.prefixes:
            if url == old or url.startswith(f"{old}/"):
                return new + url[len(old) :]
        return url

    def as_dict(self) -> JsonDict:
        """For digests."""
        return {"exact": dict(self.exact), "prefixes": [list(pair) for pair in self.prefixes]}


def prefixes_of(entries: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The prefixes that `base.moved` gives, longest first.

    Raises ConfigError if an entry is no ``OLD=NEW``.

    >>> prefixes_of(["/old=/new/"])
    (('/old', '/new'),)
    """
    pairs = []
    for entry in entries:
        old, _, new = (part.strip() for part in entry.partition("="))
        if not old or not new:
            raise ConfigError(f"base.moved={entry}: expected OLD=NEW, the beginnings of the paths before and now")
        pairs.append((absolute(old).rstrip("/"), absolute(new).rstrip("/")))
    return tuple(sorted(pairs, key=lambda pair: -len(pair[0])))


def find_moved(
    embedded: Mapping[str, str], contents: Mapping[str, str], sources: Mapping[str, Source], prefixes: Sequence[tuple[str, str]]
) -> Moves:
    """Which sources of the base lie elsewhere now.

    `embedded`: URLs of the base's sources, with what each fingerprint was.
    `contents`: their content stamps.
    `sources`: of the input, by URL.
    A source of the input is one of the base if it has its name and its content, and nothing is left at the old place: data that is there
    twice counts twice. Of several that fit, the one whose path ends most alike is taken, each once.
    """
    given = Moves(prefixes=tuple(prefixes))
    mapped = {given.place(url) for url in embedded}
    new = [url for url in sources if url not in mapped]
    names = {_name(url) for url in new}
    old = [url for url in embedded if given.place(url) == url and url not in sources and _name(url) in names and contents.get(url)]
    with ThreadPoolExecutor(_THREADS) as pool:
        gone = [url for url, is_there in zip(old, pool.map(_is_there, old), strict=True) if not is_there]
        names = {_name(url) for url in gone}
        asked = [url for url in new if _name(url) in names]
        stamps = dict(zip(asked, pool.map(lambda url: content_stamp(sources[url]), asked), strict=True))
    by_content: dict[tuple[str, str], list[str]] = {}
    for url in gone:
        by_content.setdefault((_name(url), contents[url]), []).append(url)
    exact, folders, namesakes = dict[str, str](), set[tuple[str, str]](), list[str]()
    for url in asked:
        found = by_content.get((_name(url), stamps[url]), [])
        if not found:
            namesakes.append(url)
        else:
            before = max(found, key=lambda old: (len(posixpath.commonprefix([old[::-1], url[::-1]])), old))
            found.remove(before)
            exact[before] = url
            if isinstance(source := sources[url], FolderPart):
                folders.add((before.rpartition("/#")[0], source.folder))  # all its parts moved, changed ones too
    return Moves(exact, (*prefixes, *sorted(folders)), tuple(namesakes))


def _name(url: str) -> str:
    return posixpath.basename(url)


def _is_there(url: str) -> bool:
    """Whether something is left at a place; one that can't be asked counts as gone."""
    try:
        fs, path = filesystem(url.rpartition("/#")[0] or url)
        return bool(fs.exists(path))
    except Exception:  # each file system has its own
        return False


def relocated(url: str, columns: Sequence[str], moves: Moves) -> pa.Table:
    """A table of samples with the present places of its sources.

    `columns`: those that hold places.
    """
    with open_binary(url) as file:
        table = pq.read_table(file)
    for name in columns:
        if name in table.column_names:
            values = table[name].combine_chunks().dictionary_encode()
            places = [None if value is None else moves.place(value) for value in values.dictionary.to_pylist()]
            column = pa.DictionaryArray.from_arrays(values.indices, pa.array(places, pa.string())).cast(pa.string())
            table = table.set_column(table.column_names.index(name), table.schema.field(name), column)
    return table


def relocated_marker(marker: JsonDict, moves: Moves) -> JsonDict:
    """A partition's marker with the present places of its sources."""
    shards = [shard | {"shard": moves.place(shard["shard"])} for shard in marker["result"]["shards"]]
    return marker | {
        "stamps": {moves.place(url): stamp for url, stamp in marker["stamps"].items()},
        "contents": {moves.place(url): stamp for url, stamp in marker.get("contents", {}).items()},
        "result": marker["result"] | {"shards": shards},
    }
