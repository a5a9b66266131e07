"""Why a sample was kept or dropped: its group, its keeper, the edges that join them, and what was refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cmp_to_key
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc

from dedup.config.order import PREFER, TIE, OrderTerm, parse_order, path_of, rank_of
from dedup.errors import DedupError
from dedup.explanation.draw import draw_explanation
from dedup.explanation.explanation import Component, Exclusion, Explanation, OtherKeeper, Rule, Sample
from dedup.explanation.tables import RunTables, component_edges, find_sample, path_between, read_steps, representatives
from dedup.numerics.similarity import exact_similarity
from dedup.runs.directory import Run
from dedup.runs.samples import read_samples
from dedup.storage.tables import dataset
from dedup.storage.urls import absolute

_THINNED = {"template": "keep.templates", "scene": "keep.scenes"}  # kinds of duplicates that are no copies, and the key that asked for it
_SHOWN = 8  # edges of the sample, and keepers before it
_BATCH_ROWS = 65_536


def explain(
    run_dir: str,
    key: str = "",
    *,
    shard: str = "",
    sample_id: int | None = None,
    out: str | Path | None = None,
    max_refused: int = 20,
) -> Explanation:
    """Explain why a sample was kept or dropped.

    Parameters
    ----------
    run_dir : str
        A run whose `manifest` is finished.
    key : str
        The sample's key; SHARD/KEY, where the end of the shard's URL will do; its url, or the SHA-256 of its image bytes.
    shard : str
        URL of its shard, or the end of it: for a key that several shards have.
    sample_id : int, optional
        Instead of a key.
    out : path, optional
        PNG to write: the sample, its path to the keeper, the keeper, and its refused pairs.
    max_refused : int
        Most similar refused pairs to list, at most.

    Returns
    -------
    Explanation

    Raises
    ------
    InputError
        If no sample fits, or more than one.
    RunDirectoryError
        If the run is not finished, or its tables do not belong together.

    Notes
    -----
    Most tables are read once, in batches; only the sample's connected component is held in memory.
    """
    tables = RunTables(run_dir)
    sample_id, rejections = find_sample(tables.run, key, shard, sample_id)
    if sample_id is None:
        rejection = rejections[0]
        sample, reason = Sample(rejection.shard, rejection.key), f"rejected, {rejection.reason}: {rejection.detail}"
        explanation = Explanation(run_dir, "rejected", reason, sample, min_similarity=tables.min_similarity)
    else:
        explanation = _explain(tables, sample_id, max_refused)
    explanation = replace(explanation, rejections=rejections)
    if out is not None:
        draw_explanation(explanation, out)
    return explanation


def _explain(tables: RunTables, sample_id: int, max_refused: int) -> Explanation:
    tables.require_manifest()
    place = tables.outcome(sample_id)
    sample = tables.samples([sample_id])[sample_id]
    refused, n_refused = tables.refused(sample_id, place.component_id, max_refused)
    base = Explanation(
        tables.run.url,
        "kept_unique",
        "kept: the run found no copy of it",
        sample,
        n_neighbors=tables.n_neighbors(sample_id),
        min_similarity=tables.min_similarity,
        edits=tuple(place.row.get("edits") or ()),
        refused=tuple(refused),
        n_refused=n_refused,
    )
    component, members = tables.component(sample_id, place)
    base = replace(base, component=component)
    if len(members) > 1:
        edges = component_edges(tables.run, members)
        representative = tables.representative(sample_id)
        pairs, n_edges = edges.most_similar(representative, _SHOWN)
        steps = read_steps(tables.run, pairs)
        ends = [step.dst if step.src == representative else step.src for step in steps]
        samples = tables.samples(ends)
        base = replace(base, edges=tuple(steps), edge_samples=tuple(samples[end] for end in ends), n_edges=n_edges)
        if place.keeper_id is not None and place.row["kind"] not in _THINNED:
            path = path_between(tables.run, edges, sample_id, place.keeper_id)
            samples = tables.samples(path)
            steps = read_steps(tables.run, zip(path[:-1], path[1:], strict=True))
            base = replace(base, path_samples=tuple(samples[node] for node in path), path=tuple(steps))
    if place.table == "duplicates" and place.keeper_id is not None:
        return _dropped(tables, base, sample_id, place.keeper_id, place.row)
    if place.table == "excluded":
        exclusion = Exclusion(**{name: place.row[name] for name in Exclusion.__dataclass_fields__})
        return replace(base, outcome="excluded", reason=_excluded(exclusion), exclusion=exclusion)
    return _kept(tables, base, sample_id, component)


def _dropped(tables: RunTables, base: Explanation, sample_id: int, keeper_id: int, row: dict[str, Any]) -> Explanation:
    keeper, is_exact = tables.samples([keeper_id])[keeper_id], row["kind"] == "exact"
    to_keeper = {name: row[name] for name in ("similarity_to_keeper", "distance_to_keeper")}
    if row["kind"] in _THINNED:
        key = _THINNED[row["kind"]]
        text = f"dropped: no copy, but of one {row['kind']} with {keeper.name}, which is kept; {key}={tables.config('manifest', key, 0)}"
        return replace(base, outcome="dropped_thinned", reason=text, keeper=keeper, **to_keeper)
    exact = "of the same embedding as" if tables.is_exact_by_embedding else "byte-identical to"
    reason = f"dropped: {exact if is_exact else 'a near copy of'} {keeper.name}, which is kept"
    rule = KeepPolicy(tables).rule(sample_id, keeper_id)
    return replace(base, outcome="dropped_exact" if is_exact else "dropped_near", reason=reason, keeper=keeper, rule=rule, **to_keeper)


def _kept(tables: RunTables, base: Explanation, sample_id: int, component: Component) -> Explanation:
    policy = KeepPolicy(tables)
    n_copies, best_copy, shown = policy.copies(sample_id, component.component_id)
    samples = tables.samples(shown)
    base = replace(
        base,
        n_copies=n_copies,
        copies=tuple(samples[copy] for copy in shown),
        rule=None if best_copy is None else policy.rule(sample_id, best_copy),
    )
    if component.duplication_count == 1:
        if component.n_raw_members == 1:
            return base
        text = f"edges join it to a component of {component.n_raw_members:,}, but it is not a copy of an anchor there"
        return replace(base, reason=f"kept: a group of its own; {text}")
    before, why = policy.kept_before(sample_id, component)
    if not before:
        return replace(base, outcome="kept_keeper", reason=f"kept: {_first_of(component, n_copies)}")
    return replace(base, outcome="kept_further", reason=f"kept {why}", other_keepers=before)


def _first_of(component: Component, n_copies: int) -> str:
    if component.n_excluded and component.n_kept == 1 and not n_copies:
        return f"the others of its group of {component.duplication_count:,} are excluded"
    beside = f", {component.n_kept - 1:,} of the group kept beside it" if component.n_kept > 1 else ""
    dropped = f"{n_copies:,}" if n_copies else "none"
    return f"the first of its group of {component.duplication_count:,} by the keep policy; dropped in favour of it: {dropped}{beside}"


def _excluded(exclusion: Exclusion) -> str:
    reasons = {
        "reference": f"near the reference image {exclusion.excluded_by}",
        "listed": f"the list names it: {exclusion.excluded_by}",
        "copy": f"a copy of a sample that the list names: {exclusion.excluded_by}",
    }
    where = f" in {exclusion.reference_shard}" if exclusion.reference_shard else ""
    return f"excluded: {reasons.get(exclusion.reason, exclusion.reason)}{where}"


_OF_EDITS: Final = "originality"  # the one column of a policy that is not in `metadata`


class KeepPolicy:
    """How a run chose its keepers."""

    def __init__(self, tables: RunTables) -> None:
        self._tables = tables
        order_by, carry = tables.config("manifest", "keep.order_by", ["sample_id"]), tables.config("embed", "input.carry", [])
        prefer = [absolute(path) for path in tables.config("manifest", "keep.prefer", [])]
        self._terms = parse_order(order_by, carry, prefer)
        self._columns = list(dict.fromkeys(["sample_id", *(column for term in self._terms for column in term.columns)]))

    def copies(self, sample_id: int, component_id: int) -> tuple[int, int | None, list[int]]:
        """How many samples were dropped for this one, which of them the policy prefers, and the most similar of them."""
        of_keeper = (pc.field("component_id") == component_id) & (pc.field("keeper_id") == sample_id)
        n, best = 0, None
        nearest: list[tuple[float, int]] = []
        columns = [*self._columns, "similarity_to_keeper"]
        duplicates = dataset(self._tables.run.table("duplicates"))
        for batch in duplicates.to_batches(columns=columns, filter=of_keeper, batch_size=_BATCH_ROWS):
            rows = batch.to_pylist()
            n += len(rows)
            nearest = sorted([*nearest, *((-row["similarity_to_keeper"], row["sample_id"]) for row in rows)])[:_SHOWN]
            best = min([*rows, *([best] if best else [])], key=cmp_to_key(self._compare), default=best)
        return n, None if best is None else best["sample_id"], [sample for _, sample in nearest]

    def rule(self, one: int, other: int) -> Rule | None:
        """The rule that decided between two samples of a group.

        A member goes to the most similar keeper of its group, which need not be the one that dropped it: if the policy prefers the member
        to that keeper, the rule is the one that put an earlier keeper before the member.
        """
        rows = self._rows([one, other])
        first, second = (one, other) if self._precedes(rows[one], rows[other]) else (other, one)
        dropped, keeper = (one, other) if self._tables.outcome(one).table == "duplicates" else (other, one)
        if first == dropped:
            kept = self._kept(self._tables.outcome(dropped).component_id)
            earlier = next((row for row in kept if row["sample_id"] != keeper and self._precedes(row, rows[dropped])), None)
            if earlier is None:
                return None
            rows[earlier["sample_id"]] = earlier
            first, second = earlier["sample_id"], dropped
        samples = self._tables.samples([first, second])
        if len(self._base_kept([first, second])) == 1:
            return Rule("keep.prefer_base", True, False, samples[first], samples[second])
        _, term, value, other_value = deciding_term(self._terms, rows[first], rows[second])
        if term == PREFER:
            value, other_value = (path_of(rows[which]["shard"], rows[which]["key"]) for which in (first, second))
        return Rule(term, value, other_value, samples[first], samples[second])

    def _rows(self, sample_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        """The policy's columns of samples."""
        rows = read_samples(self._tables.run, sample_ids, [name for name in self._columns if name != _OF_EDITS])
        if _OF_EDITS in self._columns:
            image_of = representatives(self._tables.run, sample_ids)
            found = self._tables.rows("edits", ["sample_id", _OF_EDITS], pc.field("sample_id").isin(list(image_of.values())))
            of_image = {row["sample_id"]: row[_OF_EDITS] for row in found}
            for sample_id, row in rows.items():
                row[_OF_EDITS] = of_image.get(image_of[sample_id])
        return rows

    def _precedes(self, one: dict[str, Any], other: dict[str, Any]) -> bool:
        base = self._base_kept([one["sample_id"], other["sample_id"]])
        return one["sample_id"] in base if len(base) == 1 else self._compare(one, other) < 0

    def kept_before(self, sample_id: int, component: Component) -> tuple[tuple[OtherKeeper, ...], str]:
        """The keepers of the group that were chosen before this one, the most similar first, and why it was kept too."""
        kept = [row["sample_id"] for row in self._kept(component.component_id)]
        place, base = kept.index(sample_id), self._base_kept(kept)
        earlier = kept[:place]
        if not earlier:
            return (), ""
        others = self._other_keepers(sample_id, earlier)
        beside = f"beside {component.n_kept - 1:,} of its group"
        per_component = int(self._tables.config("manifest", "keep.per_component", 1))
        if sample_id in base:
            return others, f"{beside}: the run's base kept it too, and keep.prefer_base=true"
        if place < max(per_component, len(base)):
            return others, f"{beside}: keep.per_component={per_component}"
        if place == 1:
            return others, "although its group has a keeper: it is not a copy of that one"
        return others, f"although its group has {place:,} earlier keepers: it is not a copy of any of them"

    def _other_keepers(self, sample_id: int, earlier: Sequence[int]) -> tuple[OtherKeeper, ...]:
        image_of = representatives(self._tables.run, [sample_id, *earlier])
        images = sorted(set(image_of.values()))
        rows = self._tables.rows("representatives", ["sample_id", "min_similarity"], pc.field("sample_id").isin(images))
        thresholds = {row["sample_id"]: row["min_similarity"] for row in rows}
        similarity: dict[int, float] = {}
        try:
            vectors = self._tables.run.read_vectors(np.array(images, dtype=np.int64))
            similar = exact_similarity(vectors, vectors[images.index(image_of[sample_id])])
            similarity = dict(zip(images, similar.tolist(), strict=True))
        except (DedupError, OSError, KeyError):  # the vectors may be gone: all else is in the tables
            pass
        refused = self._tables.refused_by_other(image_of[sample_id])
        order = sorted(earlier, key=lambda other: (-similarity.get(image_of[other], 0.0), other))[:_SHOWN]
        samples, own_threshold = self._tables.samples(order), thresholds.get(image_of[sample_id], 0.0)
        others = []
        for other, image in ((other, image_of[other]) for other in order):
            threshold = max(thresholds.get(image, 0.0), own_threshold) or None
            reason = refused[image]["reason"] if image in refused else None
            others.append(OtherKeeper(samples[other], similarity.get(image), threshold, reason))
        return tuple(others)

    def _kept(self, component_id: int) -> list[dict[str, Any]]:
        """Kept samples of a group in the order they were chosen."""
        rows = self._tables.rows("manifest", self._columns, pc.field("component_id") == component_id)
        base = self._base_kept([row["sample_id"] for row in rows])
        rows.sort(key=cmp_to_key(self._compare))
        return sorted(rows, key=lambda row: row["sample_id"] not in base)

    def _base_kept(self, sample_ids: Sequence[int]) -> set[int]:
        """Which of these the run's base kept, where that counts."""
        if not self._tables.config("manifest", "keep.prefer_base", False):
            return set()
        base = self._tables.run.config.base.run_dir
        try:
            table = dataset(Run(base).table("manifest"))
        except (DedupError, OSError):  # a finished run no longer needs its base
            return set()
        rows = table.to_table(columns=["sample_id"], filter=pc.field("sample_id").isin(list(sample_ids)))
        return set(rows["sample_id"].to_pylist())

    def _compare(self, one: dict[str, Any], other: dict[str, Any]) -> int:
        return deciding_term(self._terms, one, other)[0]


def deciding_term(terms: Sequence[OrderTerm], one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[int, str, Any, Any]:
    """Which of two samples a policy prefers: -1 for `one`, 1 for `other`, 0 if they are the same; by which term, and its values.

    Nulls come last in either direction.

    Examples
    --------
    >>> from dedup.config.order import parse_order
    >>> deciding_term(parse_order(["n_bytes desc"]), {"n_bytes": 5, "sample_id": 1}, {"n_bytes": 7, "sample_id": 0})
    (1, 'n_bytes desc', 5, 7)
    """
    for term in (*terms, TIE):
        values = [_value(row, term) for row in (one, other)]
        if values[0] == values[1]:
            continue
        if None in values:
            sign = 1 if values[0] is None else -1
        else:
            sign = -1 if (values[0] < values[1]) != term.is_descending else 1
        return sign, term.text, values[0], values[1]
    return 0, TIE.text, None, None


def _value(row: Mapping[str, Any], term: OrderTerm) -> Any:
    values = [row.get(column) for column in term.columns]
    if term.is_presence:
        return values[0] is not None
    if term.is_path:
        path = path_of(str(values[0]), str(values[1]))
        return rank_of(path, term.prefixes) if term.prefixes else path
    return values[0] if len(values) == 1 else None if None in values else math.prod(values)
