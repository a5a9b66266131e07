"""A filter for training that knows samples by a name of theirs, for shards that were made elsewhere: the key, the url or the uid."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow.dataset as ds

from dedup.contracts import Table
from dedup.errors import ConfigError, InputError
from dedup.release.plan import kept_table
from dedup.runs.directory import Run
from dedup.storage.input.encodings import clean_name
from dedup.storage.tables import dataset
from dedup.storage.urls import absolute

Name = Literal["key", "url", "uid"]
NAMES: Final = ("key", "url", "uid")
_BATCH_ROWS = 100_000


class NameFilter:
    """Tells whether the manifest of a run keeps a sample of a name; picklable, for the workers of a loader.

    Parameters
    ----------
    run_dir : str
        A finished run.
    by : {"key", "url", "uid"}
        What names a sample; uid is a column that `input.carry` carried.

    Raises
    ------
    RunDirectoryError
        If the run has no manifest.
    ConfigError
        If the run has no such column.
    InputError
        If samples that are kept and samples that are not have one name: then it names none of them.

    Notes
    -----
    Names are held as 64-bit hashes, 9 bytes for each sample of the run, in every process that filters.
    """

    def __init__(self, run_dir: str, by: Name) -> None:
        if by not in NAMES:
            raise ConfigError(f"keep: by={by!r} is unknown; expected one of shard, {', '.join(NAMES)}")
        self._run_dir, self._by = absolute(run_dir), by
        kept = _hashes(kept_table(self._run_dir), by)
        run = Run(self._run_dir)
        others = np.concatenate([_hashes(run.table(name), by) for name in ("duplicates", "excluded")])
        if len(both := np.intersect1d(kept, others)):
            raise InputError(
                f"{run_dir}: {len(both):,} values of {by} name samples that are kept and samples that are not; expected a name that is "
                "given once: filter by another, or by the shards that the run read (by='shard')"
            )
        every = np.concatenate([kept, others])
        order = np.argsort(every, kind="stable")
        self._names, self._is_kept = every[order], (np.arange(len(every)) < len(kept))[order]

    def __call__(self, sample: Mapping[str, Any]) -> bool:
        """Whether the run keeps a sample.

        `sample`: as webdataset makes it: its `__key__`, or url or uid in its ``json`` (bytes or decoded) or under their own name.
        Raises InputError if it has no such name, or the run knows none of that name.
        """
        name = self._name_of(sample)
        hashed = _hash(name)
        place = int(np.searchsorted(self._names, hashed))
        if place == len(self._names) or self._names[place] != hashed:
            raise InputError(f"{self._run_dir} has no sample of {self._by} {name}; expected samples that the run has embedded")
        return bool(self._is_kept[place])

    def _name_of(self, sample: Mapping[str, Any]) -> str:
        value = sample.get("__key__") if self._by == "key" else sample.get(self._by)
        if value is None and self._by != "key":
            fields = sample.get("json")
            fields = json.loads(fields) if isinstance(fields, bytes | str) else fields
            value = fields.get(self._by) if isinstance(fields, Mapping) else None
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if not isinstance(value, str):
            raise InputError(f"a sample without {self._by}; put dedup.keep before what takes it away, such as to_tuple")
        return clean_name(value) if self._by == "key" else value.strip()


def _hashes(table: Table, by: Name) -> npt.NDArray[np.uint64]:
    """Hashes of the names of a table's samples, one of each."""
    source: ds.Dataset = dataset(table)
    if by not in source.schema.names:
        raise ConfigError(
            f"keep: the run has no column {by}; expected one of {', '.join(name for name in NAMES if name in source.schema.names)}"
        )
    parts = [np.zeros(0, np.uint64)]
    for batch in source.to_batches(columns=[by], batch_size=_BATCH_ROWS):
        names = batch.column(0).drop_null().to_pylist()
        parts.append(np.fromiter((_hash(name) for name in names), np.uint64, len(names)))
    return np.unique(np.concatenate(parts))


def _hash(name: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"))
