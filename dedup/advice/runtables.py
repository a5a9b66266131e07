"""The tables of a finished run, asked about one sample."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from dedup.advice.explanation import Component, Refusal, Sample
from dedup.advice.finding import read_samples
from dedup.advice.paths import representatives
from dedup.errors import RunDirectoryError
from dedup.storage.layout import RunLayout
from dedup.storage.provenance import StageRecord, read_record
from dedup.storage.tables import dataset

_HOMES = {"embed": "embeddings", "index": "index", "confirm": "edges", "groups": "groups", "exclude": "exclusions", "manifest": "manifest"}
_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Place:
    """Which table a sample ended in, and its row there."""

    table: str
    row: dict[str, Any]

    @property
    def component_id(self) -> int:
        """Its group."""
        return int(self.row["component_id"])

    @property
    def keeper_id(self) -> int | None:
        """Which kept sample it is a copy of, if it was dropped."""
        return int(self.row["keeper_id"]) if self.table == "duplicates" else None


class RunTables:
    """Tables of one run, read when they are asked for.

    Parameters
    ----------
    run_dir : str

    Raises
    ------
    RunDirectoryError
        If there is no run.
    """

    def __init__(self, run_dir: str) -> None:
        self.run_dir = run_dir
        self._records: dict[str, StageRecord] = {}
        for stage, home in _HOMES.items():
            record = read_record(run_dir, home)
            if record is not None:
                self._records[stage] = record
        if "embed" not in self._records:
            text = "holds no run: expected embeddings/_stage.json; give the output.run_dir of an earlier run"
            raise RunDirectoryError(f"{run_dir} {text}")
        self.layout = RunLayout(run_dir, tuple(self._records["embed"].config.get("input.carry", ())))

    def require_manifest(self) -> None:
        """Stop where the manifest is missing, or was made from tables that were replaced since."""
        for stage, upstream in (("manifest", "groups"), ("manifest", "exclude"), ("groups", "confirm")):
            if stage not in self._records or upstream not in self._records:
                missing = stage if stage not in self._records else upstream
                raise RunDirectoryError(f"{self.run_dir} has no finished stage '{missing}'; run: dedup run output.run_dir={self.run_dir} …")
            if self._records[stage].inputs.get(upstream) != self._records[upstream].digest:
                text = f"stage '{stage}' was made from an earlier '{upstream}'; run: dedup run output.run_dir={self.run_dir} … --redo"
                raise RunDirectoryError(f"{self.run_dir}: {text}")

    @property
    def min_similarity(self) -> float:
        """The run's threshold; 0 before the index is made."""
        return float(self.config("index", "search.min_similarity", 0.0))

    @property
    def is_exact_by_embedding(self) -> bool:
        """Whether exact copies are known by nothing more than equal vectors: precomputed ones may come without a digest of the image."""
        return self._records["embed"].summary.get("exact_by") == "embedding"

    def outcome(self, sample_id: int) -> Place:
        """Where the sample ended."""
        for name in ("manifest", "duplicates", "excluded"):
            rows = dataset(self.layout.table(name)).to_table(filter=pc.field("sample_id") == sample_id).to_pylist()
            if rows:
                return Place(name, rows[0])
        text = f"sample {sample_id} was embedded, but is in none of manifest, duplicates and excluded"
        raise RunDirectoryError(f"{self.run_dir}: {text}; run: dedup run output.run_dir={self.run_dir} … --redo")

    def samples(self, sample_ids: Iterable[int]) -> dict[int, Sample]:
        """What metadata say of samples."""
        names, wanted = list(Sample.__dataclass_fields__), list(sample_ids)
        found = read_samples(self.layout, wanted, names)
        if missing := set(wanted) - set(found):
            text = f"metadata has no sample {min(missing)}, which its other tables name"
            raise RunDirectoryError(f"{self.run_dir}: {text}; run: dedup run output.run_dir={self.run_dir} … --redo")
        return {sample_id: Sample(**{name: row[name] for name in names}) for sample_id, row in found.items()}

    def representative(self, sample_id: int) -> int:
        """The first sample with the same image bytes."""
        return representatives(self.layout, [sample_id])[sample_id]

    def n_neighbors(self, sample_id: int) -> int:
        """Others at the threshold or above."""
        rows = dataset(self.layout.table("neighbors")).to_table(columns=["n_neighbors"], filter=pc.field("sample_id") == sample_id)
        return int(rows["n_neighbors"][0].as_py()) if len(rows) else 0

    def component(self, sample_id: int, place: Place) -> tuple[Component, npt.NDArray[np.int64]]:
        """The group of a sample, and the members of its connected component, ascending."""
        group = pc.field("component_id") == place.component_id
        n_kept, n_dropped, n_excluded = (
            dataset(self.layout.table(name)).count_rows(filter=group) for name in ("manifest", "duplicates", "excluded")
        )
        table = dataset(self.layout.table("groups"))
        rows = table.to_table(filter=pc.field("sample_id") == sample_id).to_pylist()
        count, alone = int(place.row["duplication_count"]), np.array([sample_id], dtype=np.int64)
        if not rows:
            return Component(place.component_id, count, n_kept, n_dropped, n_excluded, place.component_id), alone
        raw, anchor = rows[0]["raw_component_id"], rows[0]["anchor_id"]
        members = table.to_table(columns=["sample_id", "component_id"], filter=pc.field("raw_component_id") == raw)
        component = Component(
            place.component_id,
            count,
            n_kept,
            n_dropped,
            n_excluded,
            raw,
            len(members),
            pc.count_distinct(members["component_id"]).as_py(),
            self.samples([anchor])[anchor],
            rows[0]["similarity_to_anchor"],
            rows[0]["distance_to_anchor"],
        )
        return component, np.sort(members["sample_id"].to_numpy())

    def refused(self, sample_id: int, component_id: int, n: int) -> tuple[list[Refusal], int]:
        """Pairs of this image that the pixels refused, the most similar first, and how many there are."""
        by_other = self.refused_by_other(self.representative(sample_id))
        shown = sorted(by_other.items(), key=lambda item: (-item[1]["similarity"], item[0]))[:n]
        others = [other for other, _ in shown]
        samples, isin = self.samples(others), pc.field("sample_id").isin(others)
        kept = {row["sample_id"] for row in self.rows("manifest", ["sample_id"], isin)}
        groups = {row["sample_id"]: row["component_id"] for row in self.rows("groups", ["sample_id", "component_id"], isin)}
        names = ("similarity", "variant", "source", "found_by", "reason", "distance", "moved", "stage")
        found = [
            Refusal(
                samples[other],
                is_kept=other in kept,
                is_same_group=groups.get(other, other) == component_id,
                **{name: row[name] for name in names},
            )
            for other, row in shown
        ]
        return found, len(by_other)

    def refused_by_other(self, representative: int) -> dict[int, dict[str, Any]]:
        """The most similar row of `refused` for each other image that this one was told apart from."""
        touches = (pc.field("src") == representative) | (pc.field("dst") == representative)
        found: dict[int, dict[str, Any]] = {}
        for row in self.rows("refused", None, touches):
            other = row["dst"] if row["src"] == representative else row["src"]
            if other not in found or row["similarity"] > found[other]["similarity"]:
                found[other] = row
        return found

    def rows(self, name: str, columns: list[str] | None, wanted: pc.Expression) -> list[dict[str, Any]]:
        """Rows of a table that meet a condition."""
        found: list[dict[str, Any]] = dataset(self.layout.table(name)).to_table(columns=columns, filter=wanted).to_pylist()
        return found

    def config(self, stage: str, key: str, default: Any) -> Any:
        """What a stage was made with."""
        return self._records[stage].config.get(key, default) if stage in self._records else default
