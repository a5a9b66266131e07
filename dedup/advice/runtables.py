"""The tables of a finished run, asked about one sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, cmp_to_key
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from dedup.advice.explanation import Component, OtherKeeper, Refusal, Rule, Sample
from dedup.advice.finding import read_samples
from dedup.advice.ordering import deciding_term, policy_columns
from dedup.advice.paths import representatives
from dedup.errors import DedupError, RunDirectoryError
from dedup.numerics.distances import exact_similarity
from dedup.storage.embeddings import read_vectors
from dedup.storage.layout import CONFIG_FILE, RunLayout
from dedup.storage.provenance import StageRecord, read_record
from dedup.storage.tables import dataset, join, read_json

_HOMES = {"embed": "embeddings", "index": "index", "confirm": "edges", "groups": "groups", "exclude": "exclusions", "manifest": "manifest"}
_OTHERS_SHOWN = 8
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
        return float(self._config("index", "search.min_similarity", 0.0))

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

    def copies(self, sample_id: int, component_id: int) -> tuple[int, int | None]:
        """How many samples were dropped for this one, and which of them the policy prefers."""
        wanted = (pc.field("component_id") == component_id) & (pc.field("keeper_id") == sample_id)
        columns = list(dict.fromkeys(["sample_id", *policy_columns(self._order_by)]))
        n, best = 0, None
        for batch in dataset(self.layout.table("duplicates")).to_batches(columns=columns, filter=wanted, batch_size=_BATCH_ROWS):
            rows = batch.to_pylist()
            n += len(rows)
            best = min([*rows, *([best] if best else [])], key=cmp_to_key(self._compare), default=best)
        return n, None if best is None else best["sample_id"]

    def rule(self, one: int, other: int) -> Rule | None:
        """What put one of two samples of a group before the other, or, where that went to a keeper it is preferred to, a keeper before it.

        A member goes with the most similar keeper of its group, which need not be the one that dropped it.
        """
        rows = self._policy_rows([one, other])
        before = self._base_kept([one, other])
        if len(before) == 1:
            first, second = (one, other) if one in before else (other, one)
            return self._rule("keep.prefer_base", True, False, first, second)
        sign, term, value, other_value = deciding_term(self._order_by, rows[one], rows[other])
        first, second = (one, other) if sign < 0 else (other, one)
        if sign > 0:
            value, other_value = other_value, value
        dropped, keeper = (one, other) if self.outcome(one).table == "duplicates" else (other, one)
        if first == dropped:
            kept = self._kept(self.outcome(dropped).component_id)
            earlier = [row for row in kept if self._compare(row, rows[dropped]) < 0 and row["sample_id"] != keeper]
            if not earlier:
                return None
            _, term, value, other_value = deciding_term(self._order_by, earlier[0], rows[dropped])
            first, second = earlier[0]["sample_id"], dropped
        return self._rule(term, value, other_value, first, second)

    def kept_before(self, sample_id: int, component: Component) -> tuple[tuple[OtherKeeper, ...], str]:
        """The keepers of its group that were chosen before this one, the most similar first, and why this one was kept beside them."""
        kept = [row["sample_id"] for row in self._kept(component.component_id)]
        place, base = kept.index(sample_id), self._base_kept(kept)
        before = kept[:place]
        if not before:
            return (), ""
        others = self._other_keepers(sample_id, before)
        per_component = int(self._config("manifest", "keep.per_component", 1))
        if sample_id in base:
            return others, "the run's base kept it too, and keep.prefer_base=true"
        if place < max(per_component, len(base)):
            return others, f"keep.per_component={per_component}"
        return others, "it is a copy of none of those kept before it"

    @staticmethod
    def first_of(component: Component, n_copies: int) -> str:
        """Why the first of a group is kept."""
        beside = f", {component.n_kept - 1:,} of the group kept beside it" if component.n_kept > 1 else ""
        dropped = f"{n_copies:,} dropped for it" if n_copies else "none dropped for it"
        return f"the first of its group of {component.duplication_count:,} by the keep policy; {dropped}{beside}"

    def refused(self, sample_id: int, component_id: int, n: int) -> tuple[list[Refusal], int]:
        """Pairs of this image that the pixels refused, the most similar first, and how many there are."""
        by_other = self._refused_by_other(self.representative(sample_id))
        shown = sorted(by_other.items(), key=lambda item: (-item[1]["similarity"], item[0]))[:n]
        others = [other for other, _ in shown]
        samples, isin = self.samples(others), pc.field("sample_id").isin(others)
        kept = {row["sample_id"] for row in self._rows("manifest", ["sample_id"], isin)}
        groups = {row["sample_id"]: row["component_id"] for row in self._rows("groups", ["sample_id", "component_id"], isin)}
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

    def _refused_by_other(self, representative: int) -> dict[int, dict[str, Any]]:
        touches = (pc.field("src") == representative) | (pc.field("dst") == representative)
        found: dict[int, dict[str, Any]] = {}
        for row in self._rows("refused", None, touches):
            other = row["dst"] if row["src"] == representative else row["src"]
            if other not in found or row["similarity"] > found[other]["similarity"]:
                found[other] = row
        return found

    def _other_keepers(self, sample_id: int, before: Sequence[int]) -> tuple[OtherKeeper, ...]:
        of = representatives(self.layout, [sample_id, *before])
        images = sorted(set(of.values()))
        asked = {
            row["sample_id"]: row["min_similarity"]
            for row in self._rows("representatives", ["sample_id", "min_similarity"], pc.field("sample_id").isin(images))
        }
        similarity: dict[int, float] = {}
        try:
            vectors = read_vectors(self.run_dir, np.array(images, dtype=np.int64))
            similar = exact_similarity(vectors, vectors[images.index(of[sample_id])])
            similarity = dict(zip(images, similar.tolist(), strict=True))
        except (DedupError, OSError, KeyError):  # the vectors may be gone: the tables suffice for all else
            pass
        refused = self._refused_by_other(of[sample_id])
        order = sorted(before, key=lambda other: (-similarity.get(of[other], 0.0), other))[:_OTHERS_SHOWN]
        samples = self.samples(order)
        return tuple(
            OtherKeeper(
                samples[other],
                similarity.get(of[other]),
                max(asked.get(of[other], 0.0), asked.get(of[sample_id], 0.0)) or None,
                refused[of[other]]["reason"] if of[other] in refused else None,
            )
            for other in order
        )

    def _kept(self, component_id: int) -> list[dict[str, Any]]:
        """Kept samples of a group in the order they were chosen."""
        columns = list(dict.fromkeys(["sample_id", *policy_columns(self._order_by)]))
        rows = self._rows("manifest", columns, pc.field("component_id") == component_id)
        base = self._base_kept([row["sample_id"] for row in rows])
        rows.sort(key=cmp_to_key(self._compare))
        return sorted(rows, key=lambda row: row["sample_id"] not in base)

    def _base_kept(self, sample_ids: Sequence[int]) -> set[int]:
        """Which of these the run's base kept, where that counts."""
        if not self._config("manifest", "keep.prefer_base", False):
            return set()
        base = (read_json(join(self.run_dir, CONFIG_FILE)) or {}).get("base", {}).get("run_dir", "")
        try:
            table = dataset(RunLayout(base).table("manifest"))
        except (DedupError, OSError):  # a run needs its base no longer
            return set()
        rows = table.to_table(columns=["sample_id"], filter=pc.field("sample_id").isin(list(sample_ids)))
        return set(rows["sample_id"].to_pylist())

    def _policy_rows(self, sample_ids: Iterable[int]) -> dict[int, dict[str, Any]]:
        return read_samples(self.layout, sample_ids, policy_columns(self._order_by))

    def _rule(self, term: str, value: object, other_value: object, preferred: int, other: int) -> Rule:
        samples = self.samples([preferred, other])
        return Rule(term, value, other_value, samples[preferred], samples[other])

    def _rows(self, name: str, columns: list[str] | None, wanted: pc.Expression) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = dataset(self.layout.table(name)).to_table(columns=columns, filter=wanted).to_pylist()
        return found

    def _compare(self, one: dict[str, Any], other: dict[str, Any]) -> int:
        return deciding_term(self._order_by, one, other)[0]

    @cached_property
    def _order_by(self) -> list[str]:
        return list(self._config("manifest", "keep.order_by", ["sample_id"]))

    def _config(self, stage: str, key: str, default: Any) -> Any:
        return self._records[stage].config.get(key, default) if stage in self._records else default
