"""Why a sample was kept or dropped: its group, its keeper, the edges that join them, and what was refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from dedup.explanation.draw import draw_explanation
from dedup.explanation.explanation import Component, Exclusion, Explanation, Sample
from dedup.explanation.paths import component_edges, path_between, read_steps
from dedup.explanation.policy import KeepPolicy
from dedup.explanation.tables import RunTables, find_sample

_EDGES_SHOWN = 8


def explain(
    run_dir: str,
    key: str = "",
    *,
    shard: str = "",
    sample_id: int | None = None,
    out: str | Path | None = None,
    max_refused: int = 20,
) -> Explanation:
    """Tell why a sample was kept or dropped.

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
        PNG to draw: the sample, what joins it to its keeper, the keeper, and what was refused.
    max_refused : int
        Refused pairs to list at most, the most similar.

    Returns
    -------
    Explanation

    Raises
    ------
    InputError
        If no sample, or more than one, is meant.
    RunDirectoryError
        If the run is not finished, or its tables do not belong together.

    Notes
    -----
    Tables are read in batches, most of them once from end to end; what is held in memory is the sample's connected component.
    """
    tables = RunTables(run_dir)
    found = find_sample(tables.run, key, shard, sample_id)
    if found.sample_id is None:
        rejection = found.rejections[0]
        own = Sample(rejection.shard, rejection.key)
        reason = f"rejected, {rejection.reason}: {rejection.detail}"
        explanation = Explanation(run_dir, "rejected", reason, own, min_similarity=tables.min_similarity, rejections=found.rejections)
    else:
        explanation = replace(_explain(tables, found.sample_id, max_refused), rejections=found.rejections)
    if out is not None:
        draw_explanation(explanation, out)
    return explanation


def _explain(tables: RunTables, sample_id: int, max_refused: int) -> Explanation:
    tables.require_manifest()
    place = tables.outcome(sample_id)
    own = tables.samples([sample_id])[sample_id]
    refused, n_refused = tables.refused(sample_id, place.component_id, max_refused)
    base = Explanation(
        tables.run.url,
        "kept_unique",
        "kept: the run found no copy of it",
        own,
        n_neighbors=tables.n_neighbors(sample_id),
        min_similarity=tables.min_similarity,
        refused=tuple(refused),
        n_refused=n_refused,
    )
    component, members = tables.component(sample_id, place)
    base = replace(base, component=component)
    path: list[int] = []
    if len(members) > 1:
        edges = component_edges(tables.run, members)
        first = tables.representative(sample_id)
        best, n_edges = edges.of(first, _EDGES_SHOWN)
        own_steps = read_steps(tables.run, best)
        ends = [step.dst if step.src == first else step.src for step in own_steps]
        others = tables.samples(ends)
        base = replace(base, edges=tuple(own_steps), edge_samples=tuple(others[end] for end in ends), n_edges=n_edges)
        if place.keeper_id is not None:
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
    same = "of the same embedding as" if tables.is_exact_by_embedding else "byte-identical to"
    what = same if is_exact else "a near copy of"
    return replace(
        base,
        outcome="dropped_exact" if is_exact else "dropped_near",
        reason=f"dropped: {what} {keeper.name}, which is kept",
        keeper=keeper,
        similarity_to_keeper=row["similarity_to_keeper"],
        distance_to_keeper=row["distance_to_keeper"],
        rule=KeepPolicy(tables).rule(sample_id, keeper_id),
    )


def _kept(tables: RunTables, base: Explanation, sample_id: int, component: Component) -> Explanation:
    policy = KeepPolicy(tables)
    copies, best_copy = policy.copies(sample_id, component.component_id)
    base = replace(base, n_copies=copies, rule=None if best_copy is None else policy.rule(sample_id, best_copy))
    if component.duplication_count == 1:
        if component.n_raw_members == 1:
            return base
        text = f"edges join it to a component of {component.n_raw_members:,}, but it is not a copy of an anchor there"
        return replace(base, reason=f"kept: a group of its own; {text}")
    before, why = policy.kept_before(sample_id, component)
    if not before:
        others = component.n_excluded and component.n_kept == 1 and not copies
        text = f"the others of its group of {component.duplication_count:,} are excluded" if others else policy.first_of(component, copies)
        return replace(base, outcome="kept_keeper", reason=f"kept: {text}")
    return replace(base, outcome="kept_further", reason=f"kept beside {component.n_kept - 1:,} of its group: {why}", other_keepers=before)


def _excluded(exclusion: Exclusion) -> str:
    named = {
        "reference": f"near the reference image {exclusion.excluded_by}",
        "listed": f"the list names it: {exclusion.excluded_by}",
        "copy": f"a copy of a sample that the list names: {exclusion.excluded_by}",
    }
    where = f" in {exclusion.reference_shard}" if exclusion.reference_shard else ""
    return f"excluded: {named.get(exclusion.reason, exclusion.reason)}{where}"
