"""Duplicates of a folder, files, a data set or an array, as Python objects: `find_duplicates`."""

from __future__ import annotations

import base64
import html
import io
import os
import posixpath
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dedup.arrays import near_duplicates
from dedup.contracts import Reporter
from dedup.errors import ConfigError, InputError, MissingExtra
from dedup.explanation.draw import montage
from dedup.numerics.graph.components import connected_components
from dedup.pipeline.run import run
from dedup.runs.directory import Run
from dedup.storage.tables import read_table

Name = str | int
_BATCH_ROWS: Final = 64
_KEPT: Final = ("sample_id", "key", "shard", "row", "component_id")
_DROPPED: Final = (*_KEPT, "keeper_id", "kind", "similarity_to_keeper", "distance_to_keeper", "edits")
_TABLE: Final = pa.schema(
    [
        ("group", pa.int64()), ("is_kept", pa.bool_()), ("kind", pa.string()), ("similarity", pa.float32()), ("distance", pa.float32()),
        ("edits", pa.list_(pa.string())),
    ]
)  # fmt: skip


@dataclass(repr=False, eq=False)
class Duplicates:
    """Groups of copies.

    A name is what the data calls an image: the path below the folder, the path that was given, the key in a tar, or the number of a row.
    """

    groups: list[list[Name]]  # of two or more; the kept image first, then its copies, the most similar first
    unique: list[Name]  # images without a copy
    table: pa.Table  # a row for each image of a group: name, group, keeper, is_kept, kind, similarity, distance, edits
    run_dir: str = ""  # of the run behind it; '' for arrays

    def __repr__(self) -> str:
        n_copies = sum(map(len, self.groups)) - len(self.groups)
        n_images = n_copies + len(self.groups) + len(self.unique)
        return f"<Duplicates: {n_copies:,} copies in {len(self.groups):,} groups, of {n_images:,} images>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the line of `repr`, and the largest groups as a picture."""
        text = html.escape(repr(self))
        if not self.run_dir or not self.groups:
            return f"<p>{text}</p>"
        file = io.BytesIO()
        self.plot().convert("RGB").save(file, "JPEG", quality=80)
        return f'<p>{text}</p><img alt="the largest groups" src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}">'

    def __len__(self) -> int:
        """Number of groups."""
        return len(self.groups)

    def to_dict(self) -> dict[Name, list[Name]]:
        """Every image with the others of its group, as imagededup gives it; without a copy, with an empty list."""
        found: dict[Name, list[Name]] = {name: [other for other in group if other != name] for group in self.groups for name in group}
        return found | {name: [] for name in self.unique}

    def remove_list(self) -> list[Name]:
        """Names of all but the kept image of each group."""
        names, is_kept = (self.table[column].to_pylist() for column in ("name", "is_kept"))
        return [name for name, kept in zip(names, is_kept, strict=True) if not kept]

    def to_pandas(self) -> Any:
        """`table` as a data frame of pandas.

        Raises MissingExtra if pandas is not installed.
        """
        try:
            return self.table.to_pandas()
        except ImportError:
            raise MissingExtra("pandas", "spark") from None

    def plot(self, n_largest: int = 6, per_group: int = 8) -> Image.Image:
        """The largest groups as a picture, a row each, the kept image first.

        Raises InputError if there is no group, or only vectors are there.
        """
        if not self.run_dir:
            raise InputError("the duplicates of an array of vectors can't be drawn; give the images")
        if not self.groups:
            raise InputError("no group of copies was found; there is nothing to draw")
        with tempfile.TemporaryDirectory(prefix="dedup-plot-") as folder:
            path = os.path.join(folder, "groups.png")
            montage(self.run_dir, path, n_largest=n_largest, per_group=per_group)
            with Image.open(path) as picture:
                picture.load()
                return picture.copy()


def find_duplicates(
    data: Any,
    *,
    threshold: float | None = None,
    out: str | os.PathLike[str] = "",
    workers: int = 0,
    settings: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
    engine: Any = None,
) -> Duplicates:
    """Find groups of copies.

    Parameters
    ----------
    data : path, sequence of paths, datasets.Dataset, or float array of shape (n, dim)
        What `dedup run PATH` reads, such as a folder of photos; files of images; a data set with a column of images; or embeddings, of
        which all that are connected by pairs at the threshold are a group.
    threshold : float
        Cosine similarity from which images become candidates, whose pixels are then compared; of arrays, from which they are copies
        (required).
    out : path
        Where the tables of the run are kept; by default in a temporary folder that goes with the result.
    workers : int
        Processes; 0 = one per core.
    settings : mapping
        Keys of the configuration.
    reporter : Reporter
    engine : Engine
        By default processes on this machine.

    Raises
    ------
    ConfigError, InputError
        If the data can't be read, or a setting can't work.

    Examples
    --------
    >>> rows = np.array([[1.0, 0.0], [0.0, 1.0], [0.99, 0.1]])
    >>> find_duplicates(rows, threshold=0.9).groups
    [[0, 2]]
    """
    if isinstance(data, np.ndarray):
        return _of_array(data, threshold)
    folder = tempfile.mkdtemp(prefix="dedup-")
    try:
        paths, names = _as_paths(data, os.path.join(folder, "data"))
        given = {"report.enabled": False, "engine.workers": workers, **(settings or {})}
        given |= {} if threshold is None else {"search.min_similarity": threshold}
        summary = run(paths, out=out or os.path.join(folder, "run"), settings=given, reporter=reporter, engine=engine)
        found = _of_run(summary.run_dir, names)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(found, shutil.rmtree, folder, ignore_errors=True)
    return found


def _as_paths(data: Any, folder: str) -> tuple[list[str], list[str] | None]:
    """What `run` reads, and the paths of single files by the number that their links begin with."""
    if isinstance(data, str | os.PathLike):
        return [os.fspath(data)], None
    if hasattr(data, "features") and hasattr(data, "with_format"):
        return [_write_dataset(data, folder)], None
    paths = [os.fspath(path) for path in data]
    if not paths:
        raise InputError("no path is given; expected a folder, files of images, a data set or an array")
    if not all(os.path.isfile(path) for path in paths) or any(path.endswith((".tar", ".parquet", ".arrow")) for path in paths):
        return paths, None
    os.makedirs(folder)
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        twice = next(path for path, n in Counter(os.path.realpath(path) for path in paths).items() if n > 1)
        raise InputError(f"{twice} is given twice; expected every file once: leave out the others")
    for number, path in enumerate(paths):
        os.symlink(os.path.realpath(path), os.path.join(folder, f"{number:09d}-{os.path.basename(path)}"))
    return [folder], paths


def _write_dataset(data: Any, folder: str) -> str:
    """Write a data set of Hugging Face as parquet, the images' bytes included."""
    with_bytes = import_module("datasets.table").embed_table_storage
    schema = data.features.arrow_schema
    os.makedirs(folder)
    with pq.ParquetWriter(os.path.join(folder, "data.parquet"), schema) as writer:
        for batch in data.with_format("arrow").iter(batch_size=_BATCH_ROWS):
            writer.write_table(with_bytes(batch.cast(schema)).cast(schema))
    return folder


def _of_run(run_dir: str, paths: Sequence[str] | None) -> Duplicates:
    """The groups of a finished run."""
    opened = Run(run_dir)
    kept = read_table(opened.table("manifest"), list(_KEPT)).to_pylist()
    dropped = read_table(opened.table("duplicates"), list(_DROPPED)).to_pylist()
    every = [*kept, *dropped]
    has_rows = bool(every) and len({row["shard"] for row in every}) == 1 and all(row["row"] is not None for row in every)
    is_told_apart = len({row["key"] for row in every}) == len(every)

    def name_of(row: Mapping[str, Any]) -> Name:
        if paths is not None:
            return paths[int(row["key"][:9])]
        if has_rows:
            return int(row["row"])
        return str(row["key"]) if is_told_apart else f"{posixpath.basename(row['shard'].rstrip('/'))}/{row['key']}"

    copies: dict[int, list[dict[str, Any]]] = {}
    for row in dropped:
        copies.setdefault(row["keeper_id"], []).append(row)
    groups: list[list[Name]] = []
    unique: list[Name] = []
    rows: list[dict[str, Any]] = []
    for row in kept:
        keeper = name_of(row)
        of_row = sorted(copies.get(row["sample_id"], ()), key=lambda copy: (-copy["similarity_to_keeper"], copy["sample_id"]))
        if not of_row:
            unique.append(keeper)
            continue
        number = len(groups)
        groups.append([keeper, *map(name_of, of_row)])
        rows.append(_row(keeper, keeper, number))
        rows += [
            _row(name_of(copy), keeper, number, copy["kind"], copy["similarity_to_keeper"], copy["distance_to_keeper"], copy["edits"])
            for copy in of_row
        ]
    return Duplicates(groups, unique, _table(rows, is_number=has_rows and paths is None), run_dir)


def _of_array(rows: Any, threshold: float | None) -> Duplicates:
    if threshold is None:
        raise ConfigError("an array of vectors needs a threshold; expected a cosine similarity such as threshold=0.95")
    edges = near_duplicates(rows, threshold)
    labels = connected_components(edges.src, edges.dst, len(rows))
    similarity = np.full(len(rows), np.nan, dtype=np.float32)
    for ends in (edges.src, edges.dst):
        np.fmax.at(similarity, ends, edges.similarity)
    members: dict[int, list[int]] = {}
    for row, label in enumerate(labels.tolist()):
        members.setdefault(label, []).append(row)
    groups: list[list[Name]] = [list(group) for group in members.values() if len(group) > 1]
    unique: list[Name] = [group[0] for group in members.values() if len(group) == 1]
    table = [
        _row(row, group[0], number, "" if row == group[0] else "near", float(similarity[int(row)]))
        for number, group in enumerate(groups)
        for row in group
    ]
    return Duplicates(groups, unique, _table(table, is_number=True))


def _row(
    name: Name, keeper: Name, group: int, kind: str = "", similarity: float | None = None, distance: float | None = None, edits: Any = None
) -> dict[str, Any]:
    """A row of `Duplicates.table`; the kept image has no kind."""
    return {
        "name": name, "keeper": keeper, "group": group, "is_kept": name == keeper, "kind": kind or None,
        "similarity": similarity if kind else None, "distance": distance, "edits": edits,
    }  # fmt: skip


def _table(rows: list[dict[str, Any]], *, is_number: bool) -> pa.Table:
    kind = pa.int64() if is_number else pa.string()
    return pa.Table.from_pylist(rows, schema=pa.schema([("name", kind), ("keeper", kind), *_TABLE]))
