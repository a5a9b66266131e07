"""The keep policy, asked afterwards: what put one sample of a group before another, and why several were kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cmp_to_key
from typing import Any

import numpy as np
import pyarrow.compute as pc

from dedup.config.order import TIE, OrderTerm, parse_order
from dedup.errors import DedupError
from dedup.explanation.explanation import Component, OtherKeeper, Rule
from dedup.explanation.paths import representatives
from dedup.explanation.tables import RunTables, read_samples
from dedup.numerics.similarity import exact_similarity
from dedup.runs.directory import Run
from dedup.storage.tables import dataset


def deciding_term(terms: Sequence[OrderTerm], one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[int, str, Any, Any]:
    """Which of two samples a policy prefers, and by which term.

    Parameters
    ----------
    terms : sequence of OrderTerm
        Of `keep.order_by`; nulls come last in either direction.
    one, other : mapping
        Their values.

    Returns
    -------
    sign : int
        -1 if it prefers `one`, 1 if `other`, 0 if they are the same sample.
    term : str
    value, other_value : object
        What was compared.

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
    return values[0] if len(values) == 1 else None if None in values else math.prod(values)


_OTHERS_SHOWN = 8

_BATCH_ROWS = 65_536


class KeepPolicy:
    """How a run chose its keepers.

    Parameters
    ----------
    tables : RunTables
    """

    def __init__(self, tables: RunTables) -> None:
        self._tables = tables
        order_by, carry = tables.config("manifest", "keep.order_by", ["sample_id"]), tables.config("embed", "input.carry", [])
        self._terms = parse_order(order_by, carry)
        self._columns = list(dict.fromkeys(["sample_id", *(column for term in self._terms for column in term.columns)]))

    def copies(self, sample_id: int, component_id: int) -> tuple[int, int | None]:
        """How many samples were dropped for this one, and which of them the policy prefers."""
        wanted = (pc.field("component_id") == component_id) & (pc.field("keeper_id") == sample_id)
        n, best = 0, None
        duplicates = dataset(self._tables.run.table("duplicates"))
        for batch in duplicates.to_batches(columns=self._columns, filter=wanted, batch_size=_BATCH_ROWS):
            rows = batch.to_pylist()
            n += len(rows)
            best = min([*rows, *([best] if best else [])], key=cmp_to_key(self._compare), default=best)
        return n, None if best is None else best["sample_id"]

    def rule(self, one: int, other: int) -> Rule | None:
        """What put one of two samples of a group before the other, or, where that went to a keeper it is preferred to, a keeper before it.

        A member goes with the most similar keeper of its group, which need not be the one that dropped it.
        """
        rows = read_samples(self._tables.run, [one, other], self._columns)
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
        return Rule(term, value, other_value, samples[first], samples[second])

    def _precedes(self, one: dict[str, Any], other: dict[str, Any]) -> bool:
        base = self._base_kept([one["sample_id"], other["sample_id"]])
        return one["sample_id"] in base if len(base) == 1 else self._compare(one, other) < 0

    def kept_before(self, sample_id: int, component: Component) -> tuple[tuple[OtherKeeper, ...], str]:
        """The keepers of its group that were chosen before this one, the most similar first, and why this one was kept beside them."""
        kept = [row["sample_id"] for row in self._kept(component.component_id)]
        place, base = kept.index(sample_id), self._base_kept(kept)
        before = kept[:place]
        if not before:
            return (), ""
        others = self._other_keepers(sample_id, before)
        per_component = int(self._tables.config("manifest", "keep.per_component", 1))
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

    def _other_keepers(self, sample_id: int, before: Sequence[int]) -> tuple[OtherKeeper, ...]:
        of = representatives(self._tables.run, [sample_id, *before])
        images = sorted(set(of.values()))
        asked = {
            row["sample_id"]: row["min_similarity"]
            for row in self._tables.rows("representatives", ["sample_id", "min_similarity"], pc.field("sample_id").isin(images))
        }
        similarity: dict[int, float] = {}
        try:
            vectors = self._tables.run.read_vectors(np.array(images, dtype=np.int64))
            similar = exact_similarity(vectors, vectors[images.index(of[sample_id])])
            similarity = dict(zip(images, similar.tolist(), strict=True))
        except (DedupError, OSError, KeyError):  # the vectors may be gone: the tables suffice for all else
            pass
        refused = self._tables.refused_by_other(of[sample_id])
        order = sorted(before, key=lambda other: (-similarity.get(of[other], 0.0), other))[:_OTHERS_SHOWN]
        samples = self._tables.samples(order)
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
        except (DedupError, OSError):  # a run needs its base no longer
            return set()
        rows = table.to_table(columns=["sample_id"], filter=pc.field("sample_id").isin(list(sample_ids)))
        return set(rows["sample_id"].to_pylist())

    def _compare(self, one: dict[str, Any], other: dict[str, Any]) -> int:
        return deciding_term(self._terms, one, other)[0]
