"""`Run`: a run directory, where everything in it is, and the configuration it was made with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dedup import schemas
from dedup.config import Config
from dedup.config.encoders import encoder_kind
from dedup.config.key import STAGE_NAMES
from dedup.config.load import from_dict, load_config, resolved, to_dict
from dedup.contracts import JsonDict, Table
from dedup.encoders import encoder_fingerprint
from dedup.errors import ConfigError, RunDirectoryError
from dedup.numerics.search.lists import Lists
from dedup.runs.index import find_index, load_lists
from dedup.runs.record import RECORDS, StageRecord, differences_of, read_record
from dedup.runs.vectors import EmbeddingStore, InnerStore, ViewStore, embedding_path, open_store, open_views, read_vectors
from dedup.storage.arrays import array_shape
from dedup.storage.atomic import linked_place
from dedup.storage.input.walk import RUN_FILE
from dedup.storage.tables import read_table
from dedup.storage.urls import filesystem, join, read_json

CONFIG_FILE: Final = RUN_FILE  # what the run was made with
_SAMPLE_TABLES: Final = {"metadata", "manifest", "duplicates", "excluded"}
_FOLDERS: Final = {
    "metadata": ("embeddings/metadata", "metadata_*.parquet"),
    "rejected": ("embeddings/rejected", "rejected_*.parquet"),
    "representatives": ("index/representatives", ""),
    "exact": ("index/exact", ""),
    "assignments": ("index/assignments", ""),
}
_CHANGEABLE: Final = ("encoder", "input", "engine")  # sections of a finished run's configuration that may be overridden


class Run:
    """A run directory: tables, vectors, index and pictures, and the records of its finished stages.

    Reads lazily and writes nothing; pickled as its URL, so that a worker reads what it needs.

    `url`: a path or any fsspec URL.
    `config`: of a run in progress; otherwise it is read from the directory.
    `samples`: the run that holds the samples, if it is another: a second source of candidates has only vectors and lists.
    """

    def __init__(self, url: str, config: Config | None = None, samples: Run | None = None) -> None:
        self.url, self.samples = url, samples or self
        self._given = config
        self._records: dict[str, StageRecord | None] = {}  # as they were when the run was opened

    @classmethod
    def open(cls, url: str, needs: Sequence[str] = (), overrides: Sequence[str] = ()) -> Run:
        """Open an existing run as it is now: stages redone later are not noticed.

        `needs`: stages that must be finished, each made from the others as they are.
        `overrides`: ``section.key=value`` over the run's configuration, for keys of `encoder`, `input` and `engine` only.
        Raises ConfigError if the run fixes an overridden key.
        Raises RunDirectoryError if there is no run, or a stage is missing or was made from an earlier state of another.
        """
        run = cls(url)
        run._records = {stage: read_record(url, stage) for stage in STAGE_NAMES}
        if not any(run._records.values()):
            raise RunDirectoryError(f"{url} holds no run: expected {RECORDS}/embed.json; give the output.run_dir of an earlier run")
        needed = {stage: run.finished(stage) for stage in needs}
        for stage, record in needed.items():
            for earlier in (name for name in needs if name in record.inputs):
                if record.inputs[earlier] != needed[earlier].digest:
                    raise _made_earlier(url, stage, earlier)
        if not overrides:
            return run
        changed = cls(url, _overridden(run.config, overrides))
        changed._records = run._records
        return changed

    def __reduce__(self) -> tuple[Any, ...]:
        return Run, (self.url, None, None if self.samples is self else self.samples)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __str__(self) -> str:
        return self.url

    # its configuration and records

    @cached_property
    def config(self) -> Config:
        """The configuration it was made with; `output.run_dir` is where it is now."""
        if self._given is not None:
            return self._given
        values = read_json(self.path(CONFIG_FILE)) or to_dict(Config())
        for stage in STAGE_NAMES:
            record = self.record(stage)
            for key, value in record.config.items() if record is not None else ():
                section, _, name = key.partition(".")
                values.setdefault(section, {})[name] = value
        values.setdefault("output", {})["run_dir"] = self.url
        return resolved(from_dict(values))

    def record(self, stage: str) -> StageRecord | None:
        """The record of a stage; None if the stage is not finished."""
        return self._records[stage] if stage in self._records else read_record(self.url, stage)

    def finished(self, stage: str) -> StageRecord:
        """The record of a stage that must be finished.

        Raises RunDirectoryError if it is not.
        """
        record = self.record(stage)
        if record is None:
            raise RunDirectoryError(f"{self.url} has no finished stage '{stage}'; run: dedup run output.run_dir={self.url} …")
        return record

    def up_to_date(self, stage: str) -> StageRecord:
        """The record of a stage that must be finished, and made from the stages before it as they are now.

        Raises RunDirectoryError if it is not.
        """
        record = self.finished(stage)
        if earlier := self.earlier_inputs(stage):
            raise _made_earlier(self.url, stage, earlier[0])
        return record

    @property
    def records(self) -> dict[str, StageRecord]:
        """The records of all finished stages, in order."""
        return {stage: record for stage in STAGE_NAMES if (record := self.record(stage)) is not None}

    def earlier_inputs(self, stage: str) -> list[str]:
        """Stages this one was made from that were redone since or are out of date; empty if it is up to date or not finished."""
        record = self.record(stage)
        inputs = record.inputs if record is not None else {}
        return [name for name, digest in inputs.items() if name in STAGE_NAMES and not self._is_unchanged(name, digest)]

    def _is_unchanged(self, stage: str, digest: str) -> bool:
        record = self.record(stage)
        return record is not None and record.digest == digest and not self.earlier_inputs(stage)

    @property
    def has_images(self) -> bool:
        """Whether the run encoded images itself; an encoder that overrides `precomputed` afterwards does not count."""
        return encoder_kind(self.finished("embed").config["encoder.name"]).has_images

    @property
    def has_pixels(self) -> bool:
        """Whether it knows where its images are: precomputed embeddings may not say."""
        return self.has_images or bool(self.finished("embed").summary.get("has_pixels"))

    @property
    def judges_pixels(self) -> bool:
        """Whether its candidates are judged by their pixels."""
        return self.config.confirm.enabled and self.has_pixels

    @property
    def name(self) -> str:
        """Last part of its URL."""
        return self.url.rstrip("/").rpartition("/")[2] or self.url

    # its contents

    def path(self, *parts: str) -> str:
        """A path under the run directory."""
        return join(self.url, *parts)

    def table(self, name: str) -> Table:
        """A table by the name it has in `dedup.schemas.TABLES`."""
        schema = schemas.TABLES[name]
        if name in _SAMPLE_TABLES:
            schema = schemas.with_carried(schema, self.config.input.carry)
        folder, pattern = _FOLDERS.get(name, (name, ""))
        home = self.samples if name in ("metadata", "rejected") else self
        return Table(home.path(folder), schema, pattern or Table.pattern)

    def second(self, name: str) -> Run:
        """The vectors and lists of a second source of candidates, laid out like a run directory."""
        return Run(self.path("also", name), samples=self)

    def vectors(self) -> EmbeddingStore:
        """Random access to its vectors by sample_id."""
        return open_store(self.path("embeddings"))

    def read_vectors(self, sample_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        """Vectors of samples with ascending ids, shape (n, dim); from a remote run only the ranges that hold them are fetched."""
        return read_vectors(self.path("embeddings"), sample_ids)

    def inner_vectors(self) -> InnerStore:
        """Vectors of the pictures inside a frame."""
        return InnerStore(self.path("embeddings"))

    def lists(self) -> Lists:
        """The inverted lists that vectors are placed in."""
        return load_lists(self.path("index"))

    @property
    def views_folder(self) -> str:
        """The folder of its views and their lists."""
        return self.path("index", "views")

    def views(self) -> ViewStore:
        """Random access to its views by their number."""
        return open_views(self.views_folder)

    def view_lists(self) -> Lists:
        """The inverted lists that views are placed in."""
        return load_lists(self.views_folder)

    @property
    def index_facts(self) -> JsonDict:
        """`_index.json`: size, lists and files of the index; empty if there is none."""
        return read_json(self.path("index", "_index.json")) or {}

    @property
    def nprobe(self) -> int:
        """The number of lists that each image is in."""
        return max(1, int(self.index_facts.get("nprobe", 1)))

    def index_path(self) -> str:
        """The path of its FAISS index on this machine, checked, and fetched if the run is remote."""
        return find_index(self.path("index"))

    # checks

    def check_vectors(self) -> None:
        """Check that every partition has a vector for each sample, of the index's dimensions.

        Raises RunDirectoryError if the run has no image, or vectors are missing or have changed.
        """
        n_samples = self._n_samples()
        if not sum(n_samples.values()):
            raise RunDirectoryError(
                f"{self.url} has no image: its samples were all rejected, or there were none (partitions/ says which shards broke)"
            )
        redo, dim = f"run: dedup run output.run_dir={self.url} … --redo", self.index_facts.get("dim")
        for partition, n in n_samples.items():
            url = embedding_path(self.path("embeddings"), partition)
            fs, path = filesystem(url)
            if not fs.exists(path):
                place = linked_place(url)
                gone = f"leads to {place}, which is gone" if place else "is missing"
                raise RunDirectoryError(f"{url} {gone}; the index was built over it; {'put it back, or ' if place else ''}{redo}")
            try:
                shape, _ = array_shape(url)
            except ValueError as error:
                raise RunDirectoryError(f"{url} can't be read as an array ({error}); {redo}") from error
            if shape != (n, dim or shape[1]):
                expected = f"{n:,} vectors of {dim or shape[1]} dimensions"
                raise RunDirectoryError(f"{url} has changed since the index was built: expected {expected}, found {shape}; {redo}")

    def _n_samples(self) -> dict[int, int]:
        table = read_table(self.table("partitions"), ["partition", "n_samples"])
        partitions, place = np.unique(table["partition"].to_numpy(), return_inverse=True)
        counts = np.bincount(place, weights=table["n_samples"].to_numpy()).astype(np.int64)
        return dict(zip(partitions.tolist(), counts.tolist(), strict=True))

    def check_encoder(self) -> None:
        """Check that this machine's encoder is the run's; its decoder may differ.

        Raises RunDirectoryError with what differs.
        """
        if not self.has_images:
            return
        fingerprints = self.finished("embed").encoder, encoder_fingerprint(self.config.encoder)
        differences = [item for item in differences_of(*fingerprints) if item.key != "decoder"]
        if differences:
            listed = "; ".join(f"{item.key}: {item.before} there, {item.now} here" for item in differences)
            raise RunDirectoryError(
                f"{self.url} was embedded with another encoder: {listed}; give the run's own, such as encoder.pretrained=PATH"
            )


def _made_earlier(url: str, stage: str, earlier: str) -> RunDirectoryError:
    return RunDirectoryError(f"{url}: stage '{stage}' was made from an earlier '{earlier}'; run: dedup run output.run_dir={url} … --redo")


def _overridden(config: Config, overrides: Sequence[str]) -> Config:
    new_values, values = to_dict(load_config(None, list(overrides))), to_dict(config)
    for key in (text.partition("=")[0] for text in overrides):
        section, _, name = key.partition(".")
        if section not in _CHANGEABLE:
            raise ConfigError(f"{key} is fixed by the run; expected a key of {', '.join(_CHANGEABLE)}")
        values[section][name] = new_values[section][name]
    return replace(from_dict(values), output=config.output)
