"""A filter for training from the original shards: which samples of a webdataset, or rows of files, the run keeps."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from cachetools import LRUCache, cachedmethod

from dedup.errors import InputError
from dedup.release.names import NameFilter
from dedup.release.plan import kept_table
from dedup.runs.directory import Run
from dedup.storage.input.encodings import clean_name
from dedup.storage.input.published import EMBEDDING_SUFFIXES, holds_rows, n_rows_of
from dedup.storage.input.row_files import ROW_SUFFIXES
from dedup.storage.input.samples import one_line
from dedup.storage.tables import dataset, read_table
from dedup.storage.urls import absolute

_SHARDS_HELD: Final = 16
_TAR: Final = re.compile(r"[^\s'\"]+\.(?:tar|tgz)(?:\.\w+)?(?=['\"\s?#]|$)")


class KeepFilter:
    """Tells whether the manifest of a run keeps a webdataset sample; picklable, for the workers of a loader.

    Parameters
    ----------
    run_dir : str
        A finished run.

    Raises
    ------
    RunDirectoryError
        If the run has no manifest.

    Notes
    -----
    A shard is recognized by its URL, or else by the end of its path if that is unique among the run's shards: the data may have moved.
    Keys are read shard by shard, and those of the last 16 are held. webdataset yields every sample of a key that occurs twice in a
    shard; the run kept or dropped the first, and all get the answer for that one.
    """

    def __init__(self, run_dir: str) -> None:
        self._run_dir = absolute(run_dir)
        kept_table(self._run_dir)  # an error for a missing manifest comes now, not in the loader's workers
        self._start()

    def _start(self) -> None:
        self._keys: LRUCache[str, frozenset[str]] = LRUCache(_SHARDS_HELD)
        self._names: dict[str, str] = {}
        self._shards: dict[str, list[str]] | None = None  # by base name
        self._partitions: dict[str, int] = {}
        self._manifest: ds.Dataset | None = None

    def __getstate__(self) -> dict[str, Any]:
        """The run alone: each process reads for itself."""
        return {"run_dir": self._run_dir}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._run_dir = state["run_dir"]
        self._start()

    def __call__(self, sample: Mapping[str, Any]) -> bool:
        """Whether the run keeps a sample.

        `sample`: with `__key__` and `__url__`, as webdataset makes it.
        Raises InputError if the sample has neither, or its shard is none of the run's.
        """
        url, key = sample.get("__url__"), sample.get("__key__")
        if not isinstance(url, str) or not isinstance(key, str):
            raise InputError("a sample without __url__ and __key__; put dedup.keep before what takes them away, such as to_tuple")
        shard = self._names.get(url)
        if shard is None:
            shard = self._names[url] = self._shard_of(url)
        return clean_name(key) in self._kept(shard)

    def rows(self, files: Sequence[str]) -> npt.NDArray[np.int64]:
        """Rows that the run keeps of files of embeddings, parquet or Arrow, for ``Dataset.select`` of `datasets`, or ``array[rows]``.

        `files`: in the order in which the data set has them; each is recognized as a shard is.
        Returns numbers, ascending, counted through all the files.
        Raises InputError if a file is none of the run's, or can't be read.
        """
        kept, start = [np.zeros(0, np.int64)], 0
        raw = Run(self._run_dir).config.input.raw
        for name in files:
            if not holds_rows(name):
                expected = ", ".join(dict.fromkeys((*EMBEDDING_SUFFIXES, *ROW_SUFFIXES)))
                raise InputError(f"{name} is no file of rows; expected {expected}, or for tars keep() as a filter")
            kept.append(start + self._rows_of(self._shard_of(name)))
            try:
                start += n_rows_of(absolute(name), raw)
            except Exception as error:  # each file system has its own
                raise InputError(f"{name} can't be read ({one_line(error)})") from error
        return np.concatenate(kept)

    def _rows_of(self, shard: str) -> npt.NDArray[np.int64]:
        rows = self._kept_of(shard, "row", "file")
        return np.unique(np.asarray(rows.to_numpy(), dtype=np.int64))

    def _shard_of(self, url: str) -> str:
        """The run's shard that a URL, or a command with one, means."""
        if self._shards is None:
            self._shards = {}
            rows = read_table(Run(self._run_dir).table("partitions"), ["shard", "partition"])
            self._partitions = dict(zip(rows["shard"].to_pylist(), rows["partition"].to_pylist(), strict=True))
            for shard in self._partitions:
                self._shards.setdefault(posixpath.basename(shard), []).append(shard)
        urls = _TAR.findall(url) if url.startswith("pipe:") else [url]
        names = [absolute(name.removeprefix("file:")) for name in urls] or [url]
        best: list[str] = []
        for name in names:
            namesakes = self._shards.get(posixpath.basename(name.partition("?")[0]), [])
            if name in namesakes:
                return name
            ends = {shard: _common_end(shard, name) for shard in namesakes}
            longest = max(ends.values(), default=0)
            best += [shard for shard in namesakes if ends[shard] == longest]
        if len(best) != 1:
            what = "several of its shards end alike" if best else "it has no shard of that name"
            hint = "open the shards under the paths the run had, or know samples by another name: dedup.keep(run, by='key') or by='url'"
            raise InputError(f"{url} can't be matched to a shard of {self._run_dir}: {what}; {hint}")
        return best[0]

    @cachedmethod(lambda self: self._keys)
    def _kept(self, shard: str) -> frozenset[str]:
        """Keys of a shard that the manifest keeps."""
        return frozenset(self._kept_of(shard, "key").to_pylist())

    def _kept_of(self, shard: str, column: str, of: Literal["shard", "file"] = "shard") -> pa.ChunkedArray:
        if self._manifest is None:
            self._manifest = dataset(kept_table(self._run_dir))  # footers are read once
        first = self._partitions[shard] << 32
        # the files are ordered by sample_id, so that most are passed over
        in_shard = (pc.field("sample_id") >= first) & (pc.field("sample_id") < first + (1 << 32)) & (pc.field(of) == shard)
        return self._manifest.to_table(columns=[column], filter=in_shard)[column]


def keep(run_dir: str, by: Literal["shard", "key", "url", "uid"] = "shard") -> KeepFilter | NameFilter:
    """Make a filter that passes the samples a run keeps, for ``webdataset.WebDataset(...).select(...)``.

    Parameters
    ----------
    run_dir : str
        A finished run.
    by : {"shard", "key", "url", "uid"}
        How a sample is recognized: by its shard and key, for the shards that the run read; or by a name of its own, for tars that were made
        elsewhere, as those that img2dataset makes of the urls of published embeddings.

    Returns
    -------
    KeepFilter or NameFilter

    Raises
    ------
    RunDirectoryError
        If the run has no manifest.
    ConfigError, InputError
        If the run has no such column, or one name is given to samples that are kept and to samples that are not.

    Notes
    -----
    ``wds.WebDataset("shards/{00000..00099}.tar").select(dedup.keep("out"))``, for a run over embeddings
    ``wds.WebDataset("img2dataset/{00000..00099}.tar").select(dedup.keep("out", by="url"))``, and for a run over parquet files
    ``load_dataset("parquet", data_files=files)["train"].select(dedup.keep("out").rows(files))``; of an array of embeddings
    ``np.load(file)[dedup.keep("out").rows([file])]``.
    """
    return KeepFilter(run_dir) if by == "shard" else NameFilter(run_dir, by)


def _common_end(a: str, b: str) -> int:
    """How many parts of two paths are equal, counted from their ends."""
    pairs = zip(reversed(a.split("/")), reversed(b.partition("?")[0].split("/")), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
