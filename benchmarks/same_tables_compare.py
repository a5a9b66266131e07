"""Comparison of two results of `same_tables.py`: tables row by row, arrays and other files bit by bit, JSON by value."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# locks and pictures; the configuration, whose keys may have other names; models and generations made by the benchmark itself
IGNORED = ("*_finished", "*_lock.json", "*_config.json", "*.png", "*.html", "*/calibration.yaml", "*/generations/*")
# times, versions, and digests that keys and versions go into
VOLATILE = {
    "seconds",
    "worker_seconds",
    "duration",
    "start_time",
    "end_time",
    "finished",
    "dedup_version",
    "layout",
    "output_version",
    "digest",
    "inputs",
    "identity",
    "stamps",
}
MOST = 8  # differences printed for one file


@dataclass(frozen=True)
class Names:
    """What has another name in the new tree, and what does not count."""

    paths: Mapping[str, str] = field(default_factory=dict)  # words of paths under a run's folder
    fields: Mapping[str, str] = field(default_factory=dict)  # columns and fields of JSON
    values: Mapping[tuple[str, str], str] = field(default_factory=dict)  # by column or field, and the old value
    ignored: tuple[str, ...] = ()

    def path(self, path: str) -> str:
        """A file's path in the new tree."""
        for old, new in self.paths.items():
            path = re.sub(rf"(?<![A-Za-z0-9]){re.escape(old)}(?![A-Za-z0-9])", lambda _, new=new: new, path)
        return path

    def name(self, name: str) -> str:
        """The name of a column or field in the new tree."""
        return self.fields.get(name, name)

    def value(self, name: str, value: Any) -> Any:
        """A value of a column or field, by its old name, in the new tree."""
        return self.values.get((name, value), value) if isinstance(value, str) else value

    def is_ignored(self, path: str) -> bool:
        """Whether a file does not count."""
        return any(fnmatch(path, pattern) for pattern in (*IGNORED, *self.ignored))


@dataclass
class Comparison:
    """What was compared of one run, and what differs."""

    run: str
    names: Names
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)  # by kind of file, and what is counted
    differing: Counter[str] = field(default_factory=Counter)  # files, by kind
    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def folders(self, old: Path, new: Path) -> None:
        """Compare all files of two folders."""
        left = {self.names.path(path): old / path for path in files_of(old) if not self.names.is_ignored(path)}
        right = {path: new / path for path in files_of(new) if not self.names.is_ignored(path)}
        for path in sorted(left.keys() | right.keys()):
            kind = kind_of(path)
            if path in left and path in right:
                self.counts[kind, "files"] += 1
                found = list(COMPARE[kind](self, path, left[path], right[path]))
            else:
                found = [f"only in {'OLD' if path in left else 'NEW'}"]
            self.differing[kind] += bool(found)
            self.differences += [f"{self.run}  {path}  {text}" for text in shortened(found)]

    def tables(self, path: str, old: Path, new: Path) -> Iterator[str]:
        """Differences of two parquet files: schema, number of rows, and the first row of each column that differs."""
        left, right = pq.read_table(old), pq.read_table(new)
        names = [self.names.name(name) for name in left.schema.names]
        self.counts["tables", "rows"] += len(left)
        if names != right.schema.names:
            yield f"columns: {', '.join(names)} != {', '.join(right.schema.names)}"
        if len(left) != len(right):
            yield f"rows: {len(left):,} != {len(right):,}"
        for name, before in zip(names, left.schema, strict=True):
            if name not in right.schema.names:
                continue
            after = right.schema.field(name)
            if (before.type, before.nullable) != (after.type, after.nullable):
                yield f"{name}: type {described(before)} != {described(after)}"
            values = [self.names.value(before.name, value) for value in left[before.name].to_pylist()]
            yield from unequal_rows(name, values, right[name].to_pylist())

    def arrays(self, path: str, old: Path, new: Path) -> Iterator[str]:
        """Differences of two .npy or .npz files."""
        left, right = arrays_of(old), arrays_of(new)
        if left.keys() != right.keys():
            yield f"arrays: {', '.join(left)} != {', '.join(right)}"
        for name in left.keys() & right.keys():
            yield from unequal_arrays(name, left[name], right[name])
        self.counts["arrays", "elements"] += sum(array.size for array in left.values())

    def json(self, path: str, old: Path, new: Path) -> Iterator[str]:
        """Differences of two JSON or JSON-lines files; those of configurations are notes."""
        left, right = (json_of(file) for file in (old, new))
        if PurePosixPath(path).parent.name == "_stages":
            self.note_settings(path, left.pop("config"), right.pop("config"))
        if "_done" in PurePosixPath(path).parts:  # sizes of parquet files depend on their metadata too
            left, right = left["result"], right["result"]
        before, after = dict(leaves(left, self.names)), dict(leaves(right, Names()))
        self.counts["json", "values"] += len(before)
        for name in [*before, *(name for name in after if name not in before)]:
            one, other = (repr(values[name]) if name in values else "nothing" for values in (before, after))
            if one != other:
                yield f"{name}: {one} != {other}"

    def note_settings(self, path: str, old: dict[str, Any], new: dict[str, Any]) -> None:
        """Note keys and values of a stage's configuration that are not the same."""
        for key in sorted(old.keys() | new.keys()):
            one, other = (repr(config[key]) if key in config else "no such key" for config in (old, new))
            if one != other:
                self.notes.append(f"{key}: {one}, now {other}")

    def bytes(self, path: str, old: Path, new: Path) -> Iterator[str]:
        """Where two files differ first."""
        left, right = old.read_bytes(), new.read_bytes()
        self.counts[kind_of(path), "bytes"] += len(left)
        if left != right:
            pairs = enumerate(zip(left, right, strict=False))
            first = next((place for place, (one, other) in pairs if one != other), min(len(left), len(right)))
            yield f"{len(left):,} and {len(right):,} bytes, first different at byte {first:,}"

    def lines(self) -> Iterator[str]:
        """What was compared, a line for each kind of file."""
        for kind in COMPARE:
            what = [f"{count:,} {unit}" for (of, unit), count in self.counts.items() if of == kind]
            if what or self.differing[kind]:
                verdict = f"{self.differing[kind]} files DIFFER" if self.differing[kind] else "equal"
                yield f"{self.run:12} {kind:7} {', '.join(what) or 'none in both'}: {verdict}"


COMPARE = {
    "tables": Comparison.tables,
    "arrays": Comparison.arrays,
    "index": Comparison.bytes,
    "json": Comparison.json,
    "others": Comparison.bytes,
}


def kind_of(path: str) -> str:
    """How a file is compared."""
    suffix, kinds = (
        PurePosixPath(path).suffix,
        {".parquet": "tables", ".npy": "arrays", ".npz": "arrays", ".json": "json", ".jsonl": "json"},
    )
    return "index" if suffix in {".faiss", ".ivfdata"} else kinds.get(suffix, "others")


def files_of(folder: Path) -> list[str]:
    """Paths of all files under a folder, from there."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def shortened(found: Sequence[str]) -> list[str]:
    """The first differences of a file, and how many more there are."""
    return [*found[:MOST], f"and {len(found) - MOST:,} more"] if len(found) > MOST else list(found)


def described(column: pa.Field) -> str:
    """Type of a column, and whether it may hold nulls."""
    return f"{column.type}{'' if column.nullable else ' not null'}"


def unequal_rows(name: str, old: Sequence[Any], new: Sequence[Any]) -> Iterator[str]:
    """The first row in which two columns differ; compared as texts, so that NaN equals itself and 0.0 does not equal -0.0."""
    rows = [row for row, (one, other) in enumerate(zip(old, new, strict=False)) if repr(one) != repr(other)]
    if rows:
        yield f"{name}: row {rows[0]:,}: {old[rows[0]]!r} != {new[rows[0]]!r} ({len(rows):,} rows differ)"


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a .npz by name; that of a .npy."""
    loaded = np.load(path)
    return {"array": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)


def unequal_arrays(name: str, old: np.ndarray, new: np.ndarray) -> Iterator[str]:
    """How two arrays differ: type, shape, or the first element that is not the same to the last bit."""
    if (old.dtype, old.shape) != (new.dtype, new.shape):
        yield f"{name}: {old.dtype} {old.shape} != {new.dtype} {new.shape}"
    elif old.tobytes() != new.tobytes():
        left, right = (np.frombuffer(array.tobytes(), f"V{array.dtype.itemsize}") for array in (old, new))
        places = np.flatnonzero(left != right)
        first = tuple(map(int, np.unravel_index(places[0], old.shape)))
        yield f"{name}: element {first}: {old[first]!r} != {new[first]!r} ({len(places):,} elements differ)"


def json_of(path: Path) -> Any:
    """A JSON value, or a list of the values of all lines."""
    text = path.read_text()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return json.loads(text) if text.strip() else {}


def leaves(value: Any, names: Names, at: str = "", name: str = "") -> Iterator[tuple[str, Any]]:
    """Values inside a JSON value with their paths, without times and digests."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            if key not in VOLATILE:
                yield from leaves(inner, names, f"{at}.{names.name(key)}".lstrip("."), key)
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from leaves(inner, names, f"{at}[{number}]", name)
    else:
        yield at, names.value(name, value)
