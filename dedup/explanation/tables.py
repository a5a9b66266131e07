"""The tables of a finished run that explanations come from: a sample by any of its names, its group, and the edges of the group."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dedup.errors import ConfigError, EdgeError, InputError, RunDirectoryError
from dedup.explanation.explanation import Component, Refusal, Rejection, Sample, Step
from dedup.numerics.arraytypes import Ids, Sims
from dedup.numerics.graph.components import widest_path
from dedup.runs.directory import Run
from dedup.runs.samples import read_samples
from dedup.schemas.pairs import STANDING
from dedup.storage.tables import dataset, read_table

_BATCH_ROWS = 65_536
_SHOWN = 10
_SHOWN_NEAR, _MOST_NEAR = 3, 2_000  # keys that are suggested, of so many that are compared
_NEAR_LENGTH = 4  # letters by which lengths of near keys differ
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_EDGE_COLUMNS = ["src", "dst", "similarity", "kind", "variant", "source", "found_by", "confirmed", "distance"]
_OUTCOMES = ("manifest", "duplicates", "excluded")  # the tables of which one holds each sample
_IS_EXACT = pc.field("kind") == "exact"


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
        """The kept sample it is a copy of, if it was dropped."""
        return int(self.row["keeper_id"]) if self.table == "duplicates" else None


@dataclass(frozen=True)
class ComponentEdges:
    """The standing edges of one connected component, without those of byte-identical copies."""

    # each of shape (n_edges,)
    src: Ids
    dst: Ids
    similarity: Sims

    def most_similar(self, sample_id: int, n: int) -> tuple[list[tuple[int, int]], int]:
        """The most similar edges of a sample, as (src, dst), and how many it has."""
        touching = np.flatnonzero((self.src == sample_id) | (self.dst == sample_id))
        order = touching[np.lexsort((self.dst[touching], self.src[touching], -self.similarity[touching]))][:n]
        return [(int(self.src[k]), int(self.dst[k])) for k in order], len(touching)


def find_sample(run: Run, key: str, shard: str = "", sample_id: int | None = None) -> tuple[int | None, tuple[Rejection, ...]]:
    """Find a sample as `dedup.explain` does: its sample_id, None where it was rejected, and rows of `rejected` with its shard and key."""
    if sample_id is not None:
        row = read_samples(run, [sample_id], ["sample_id", "shard", "key"]).get(sample_id)
        if row is None:
            raise InputError(f"{run.url} has no sample {sample_id}; its embeddings/metadata/ lists the sample_ids")
        return sample_id, _rejections(run, [row["key"]], lambda row_shard, _: row_shard == row["shard"])
    if not key:
        raise ConfigError("no sample is named; expected KEY, SHARD/KEY or --sample-id")
    suffixes = [key, *(key[place + 1 :] for place, letter in enumerate(key) if letter == "/" and key[place + 1 :])]

    def is_meant(row_shard: str, row_key: str) -> bool:
        prefix = key[: len(key) - len(row_key)].rstrip("/")
        return (not prefix or _is_shard(row_shard, prefix)) and (not shard or _is_shard(row_shard, shard))

    rows = [row for row in _metadata(run, pc.field("key").isin(suffixes)) if is_meant(row["shard"], row["key"])]
    rejected = _rejections(run, suffixes, is_meant)
    # the whole text as a key is preferred to a part of it
    longest = max((len(row_key) for row_key in [*(row["key"] for row in rows), *(row.key for row in rejected)]), default=0)
    rows = [row for row in rows if len(row["key"]) == longest]
    rejected = tuple(row for row in rejected if len(row.key) == longest)
    if not rows and not rejected:
        return _by_content(run, key, shard), ()
    shards = sorted({row["shard"] for row in rows} | {row.shard for row in rejected})
    if len(shards) > 1:
        raise InputError(f"{len(shards)} shards have a sample {key}: {_listed(shards)}; say which with --shard (shard= in Python)")
    if len(rows) > 1:
        raise InputError(f"{len(rows)} samples are {key} in {shards[0]}: {_listed(row['sample_id'] for row in rows)}; give --sample-id")
    return rows[0]["sample_id"] if rows else None, rejected


def _metadata(run: Run, condition: pc.Expression) -> list[dict[str, Any]]:
    columns = ["sample_id", "shard", "key"]
    batches = dataset(run.table("metadata")).to_batches(columns=columns, filter=condition, batch_size=_BATCH_ROWS)
    return [row for batch in batches for row in batch.to_pylist()]


def _rejections(run: Run, keys: Sequence[str], is_meant: Callable[[str, str], bool]) -> tuple[Rejection, ...]:
    rows = dataset(run.table("rejected")).to_table(filter=pc.field("key").isin(list(keys))).to_pylist()
    return tuple(Rejection(**row) for row in rows if is_meant(row["shard"], row["key"]))


def _is_shard(shard: str, text: str) -> bool:
    """Whether a text is a shard's URL, or the end of it from a slash on."""
    shard, text = shard.rstrip("/"), text.rstrip("/").removeprefix("./")
    return shard == text or shard.endswith(f"/{text}")


def _by_content(run: Run, key: str, shard: str) -> int:
    for applies, column, value in (("://" in key, "url", key), (_SHA256.fullmatch(key), "sha256", key.lower())):
        if not applies:
            continue
        rows = [row for row in _metadata(run, pc.field(column) == value) if not shard or _is_shard(row["shard"], shard)]
        if len(rows) > 1:
            samples = _listed(f"{row['key']} in {row['shard']} ({row['sample_id']})" for row in rows)
            raise InputError(f"{len(rows)} samples have the {column} {key}: {samples}; say which with --sample-id")
        if rows:
            sample_id: int = rows[0]["sample_id"]
            return sample_id
    raise InputError(_not_found(run, key, shard))


def _not_found(run: Run, key: str, shard: str) -> str:
    where = f" in {shard}" if shard else ""
    text = f"{run.url} has no sample {key}{where}: it was neither embedded nor rejected"
    partitions = read_table(run.table("partitions"), ["shard", "status", "error"])
    if shard:
        matching = [row for row in partitions.to_pylist() if _is_shard(row["shard"].partition("#")[0], shard)]
        if not matching:
            return f"{text}; that shard is none of the {len(partitions):,} of the run: see its partitions/ table"
        broken = [row for row in matching if row["status"] != "ok"]
        if broken:
            return f"{text}; the shard was {broken[0]['status']}: {broken[0]['error']}"
    n_broken = pc.sum(pc.not_equal(partitions["status"], "ok").cast(pa.int64())).as_py() or 0
    tail = f" ({n_broken:,} shards could not be read whole: partitions/ says which)" if n_broken else ""
    near = _near_keys(run, key)
    if near:
        return f"{text}; did you mean {' or '.join(near)}?{tail}"
    return f"{text}; a key is a member's name in the tar up to the first dot of its base name, in a folder the relative path{tail}"


def _near_keys(run: Run, key: str) -> list[str]:
    """Keys that differ from one in little: in letters of another case, in folders or endings, in leading zeros, in a digit."""
    base = _base(key)
    stem = base.lstrip("0") or base
    if not stem:
        return []
    found: list[str] = []
    least, most = max(1, len(base) - _NEAR_LENGTH), len(key) + 4 * _NEAR_LENGTH
    for batch in dataset(run.table("metadata")).to_batches(columns=["key"], batch_size=_BATCH_ROWS):
        keys = batch["key"].filter(
            pc.and_(pc.greater_equal(pc.utf8_length(batch["key"]), least), pc.less(pc.utf8_length(batch["key"]), most))
        )
        lower = pc.utf8_lower(keys)
        similar = pc.match_substring(lower, stem)
        if len(base) > _NEAR_LENGTH:  # all but one letter
            similar = pc.or_(similar, pc.match_substring_regex(lower, _one_off(base)))
        found += keys.filter(similar).to_pylist()
        if len(found) > _MOST_NEAR:
            break
    same = [name for name in found if _base(name).lstrip("0") == stem]
    return [*dict.fromkeys([*same, *difflib.get_close_matches(key, found[:_MOST_NEAR], n=_SHOWN_NEAR, cutoff=0.5)])][:_SHOWN_NEAR]


def _base(key: str) -> str:
    """A key without folder and ending, in lower case."""
    return key.rpartition("/")[2].partition(".")[0].lower()


def _one_off(text: str) -> str:
    """A pattern of texts that differ from one in a letter."""
    return "|".join(f"{re.escape(text[:place])}.?{re.escape(text[place + 1 :])}" for place in range(len(text)))


def _listed(names: Iterable[object]) -> str:
    texts = [str(name) for name in names]
    more = f", and {len(texts) - _SHOWN:,} more" if len(texts) > _SHOWN else ""
    return f"{', '.join(texts[:_SHOWN])}{more}"


class RunTables:
    """The tables of one run, which has at least embedded its samples."""

    def __init__(self, run_dir: str) -> None:
        self.run = Run.open(run_dir)
        self.run.finished("embed")

    def require_manifest(self) -> None:
        """Raise RunDirectoryError if the manifest is missing, or was made from tables that were replaced since."""
        Run.open(self.run.url, ("confirm", "groups", "exclude", "manifest"))

    @property
    def min_similarity(self) -> float:
        """The run's threshold; 0 before the index is made."""
        return float(self.config("index", "search.min_similarity", 0.0))

    @property
    def is_exact_by_embedding(self) -> bool:
        """Whether exact copies are told by equal vectors alone: precomputed ones may come without digests of the images."""
        return self.run.finished("embed").summary.get("exact_by") == "embedding"

    def outcome(self, sample_id: int) -> Place:
        """The table the sample ended in, and its row."""
        for name in _OUTCOMES:
            if rows := self.rows(name, None, pc.field("sample_id") == sample_id):
                return Place(name, rows[0])
        raise self._mixed(f"sample {sample_id} was embedded, but is in none of {', '.join(_OUTCOMES)}")

    def _mixed(self, text: str) -> RunDirectoryError:
        return RunDirectoryError(f"{self.run.url}: {text}; run: dedup run output.run_dir={self.run.url} … --redo")

    def samples(self, sample_ids: Iterable[int]) -> dict[int, Sample]:
        """Samples with their metadata, by sample_id."""
        names, wanted = list(Sample.__dataclass_fields__), list(sample_ids)
        rows = read_samples(self.run, wanted, names)
        if missing := set(wanted) - set(rows):
            raise self._mixed(f"metadata has no sample {min(missing)}, which its other tables name")
        return {sample_id: Sample(**{name: row[name] for name in names}) for sample_id, row in rows.items()}

    def representative(self, sample_id: int) -> int:
        """The first sample with the same image bytes."""
        return representatives(self.run, [sample_id])[sample_id]

    def n_neighbors(self, sample_id: int) -> int:
        """Number of other samples at the threshold or above."""
        rows = self.rows("neighbors", ["n_neighbors"], pc.field("sample_id") == sample_id)
        return int(rows[0]["n_neighbors"]) if rows else 0

    def component(self, sample_id: int, place: Place) -> tuple[Component, Ids]:
        """The group of a sample, and the members of its connected component, ascending."""
        group = pc.field("component_id") == place.component_id
        n_kept, n_dropped, n_excluded = (dataset(self.run.table(name)).count_rows(filter=group) for name in _OUTCOMES)
        count = int(place.row["duplication_count"])
        alone = Component(place.component_id, count, n_kept, n_dropped, n_excluded, place.component_id)
        rows = self.rows("groups", None, pc.field("sample_id") == sample_id)
        if not rows:
            return alone, np.array([sample_id], dtype=np.int64)
        raw_id, anchor_id = rows[0]["raw_component_id"], rows[0]["anchor_id"]
        columns = ["sample_id", "component_id"]
        members = dataset(self.run.table("groups")).to_table(columns=columns, filter=pc.field("raw_component_id") == raw_id)
        n_groups, anchor = pc.count_distinct(members["component_id"]).as_py(), self.samples([anchor_id])[anchor_id]
        in_row = {name: rows[0][name] for name in ("raw_component_id", "similarity_to_anchor", "distance_to_anchor")}
        component = replace(alone, n_raw_members=len(members), n_raw_groups=n_groups, anchor=anchor, **in_row)
        return component, np.sort(members["sample_id"].to_numpy())

    def refused(self, sample_id: int, component_id: int, n: int) -> tuple[list[Refusal], int]:
        """The n most similar pairs of this image that the pixels refused, and how many there are."""
        by_other = self.refused_by_other(self.representative(sample_id))
        shown = sorted(by_other.items(), key=lambda item: (-item[1]["similarity"], item[0]))[:n]
        others = [other for other, _ in shown]
        samples, among_others = self.samples(others), pc.field("sample_id").isin(others)
        kept = {row["sample_id"] for row in self.rows("manifest", ["sample_id"], among_others)}
        groups = {row["sample_id"]: row["component_id"] for row in self.rows("groups", ["sample_id", "component_id"], among_others)}
        refusals = []
        for other, row in shown:
            verdict = {name: row[name] for name in ("similarity", "variant", "source", "found_by", "reason", "distance", "moved", "stage")}
            is_same_group = groups.get(other, other) == component_id
            refusals.append(Refusal(samples[other], is_kept=other in kept, is_same_group=is_same_group, **verdict))
        return refusals, len(by_other)

    def refused_by_other(self, representative: int) -> dict[int, dict[str, Any]]:
        """The most similar row of `refused` for each image that this one was told apart from."""
        touches = (pc.field("src") == representative) | (pc.field("dst") == representative)
        by_other: dict[int, dict[str, Any]] = {}
        for row in self.rows("refused", None, touches):
            other = row["dst"] if row["src"] == representative else row["src"]
            if other not in by_other or row["similarity"] > by_other[other]["similarity"]:
                by_other[other] = row
        return by_other

    def rows(self, name: str, columns: list[str] | None, condition: pc.Expression) -> list[dict[str, Any]]:
        """Rows of a table that meet a condition."""
        rows: list[dict[str, Any]] = dataset(self.run.table(name)).to_table(columns=columns, filter=condition).to_pylist()
        return rows

    def config(self, stage: str, key: str, default: Any) -> Any:
        """The value of a configuration key when a stage was made."""
        record = self.run.record(stage)
        return default if record is None else record.config.get(key, default)


def component_edges(run: Run, members: Ids) -> ComponentEdges:
    """Read the edges between the members of a component, which ascend.

    Files are read in batches, and only where they hold ids of the component's range. Memory: 20 bytes an edge of the component; the
    path through them takes some 300 bytes an edge.
    """
    src, dst = pc.field("src"), pc.field("dst")
    low, high = int(members[0]), int(members[-1])
    in_component = (src >= low) & (src < high) & (dst > low) & (dst <= high) & src.isin(pa.array(members))
    edges = dataset(run.table("edges")).to_table(columns=_EDGE_COLUMNS[:3], filter=STANDING & in_component, batch_size=_BATCH_ROWS)
    return ComponentEdges(*(edges[name].to_numpy() for name in edges.column_names))


def representatives(run: Run, sample_ids: Iterable[int]) -> dict[int, int]:
    """The sample that stands for the image of each: the first with the same bytes, or the sample itself."""
    themselves = {sample_id: sample_id for sample_id in sample_ids}
    rows = dataset(run.table("exact")).to_table(filter=pc.field("sample_id").isin(list(themselves))).to_pylist()
    return themselves | {row["sample_id"]: row["representative_id"] for row in rows}


def path_between(run: Run, edges: ComponentEdges, start: int, end: int) -> list[int]:
    """sample_ids from one sample to another of its component, along the widest path; copies join by the image they share.

    Raises RunDirectoryError if nothing joins them: tables of different runs.
    """
    image_of = representatives(run, [start, end])
    try:
        images = widest_path(edges.src, edges.dst, edges.similarity, image_of[start], image_of[end]).tolist()
    except EdgeError as error:
        text = f"no edges join sample {start} and sample {end}, which are in one component ({error})"
        remedy = "its tables do not belong together: run dedup status, then dedup run … --redo"
        raise RunDirectoryError(f"{run.url}: {text}; {remedy}") from error
    return [*([start] if image_of[start] != start else []), *images, *([end] if image_of[end] != end else [])]


def read_steps(run: Run, pairs: Iterable[tuple[int, int]]) -> list[Step]:
    """Rows of `edges` for pairs in either direction, where there are any; the more similar one of a pair that occurs twice."""
    wanted = [(min(pair), max(pair)) for pair in pairs]
    ends = [pa.array(sorted({pair[side] for pair in wanted}), pa.int64()) for side in (0, 1)]
    if not wanted:
        return []
    batches = dataset(run.table("edges")).to_batches(
        columns=_EDGE_COLUMNS,
        filter=pc.field("src").isin(ends[0]) & pc.field("dst").isin(ends[1]) & (_IS_EXACT | STANDING),
        batch_size=_BATCH_ROWS,
    )
    is_wanted, steps = set(wanted), dict[tuple[int, int], Step]()
    for batch in batches:
        for step in (Step(**row) for row in batch.to_pylist()):
            pair = (step.src, step.dst)
            if pair in is_wanted and (pair not in steps or step.similarity > steps[pair].similarity):
                steps[pair] = step
    return [steps[pair] for pair in wanted if pair in steps]
