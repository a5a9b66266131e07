"""The keep policy: which samples of each group are kept, and the keeper of each that is dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.config import Config
from dedup.config.order import OrderTerm, parse_order
from dedup.numerics.arraytypes import Ids, Sims
from dedup.numerics.graph.cover import component_slices, greedy_cover
from dedup.numerics.similarity import exact_similarity
from dedup.runs.directory import Run
from dedup.schemas.pairs import NEAR_SQL
from dedup.stages.groups.cover import cover, min_similarity_of
from dedup.stages.manifest.whole import with_whole_samples
from dedup.stages.stage import StageContext
from dedup.storage.tables import ask
from dedup.storage.urls import absolute

_TASK_ROWS = 20_000

ORDER_SQL = """
SELECT groups.component_id AS component_id, metadata.sample_id AS sample_id,
       COALESCE(exact.representative_id, metadata.sample_id) AS representative_id, {is_kept} AS is_kept
FROM groups
JOIN metadata ON groups.sample_id = metadata.sample_id
LEFT JOIN exact ON groups.sample_id = exact.sample_id
LEFT JOIN exclusions ON groups.sample_id = exclusions.sample_id
{edits}
{kept}
WHERE exclusions.sample_id IS NULL
ORDER BY groups.component_id, is_kept DESC, {policy}, metadata.sample_id
"""

# the edits of the image that a sample of `metadata` shows
EDITS_SQL = """
LEFT JOIN exact AS shown ON metadata.sample_id = shown.sample_id
LEFT JOIN edits ON COALESCE(shown.representative_id, metadata.sample_id) = edits.sample_id
"""

# what the run's base kept, where `keep.prefer_base` is set
IS_KEPT_SQL = "CASE WHEN kept.sample_id IS NULL THEN CAST(0 AS BIGINT) ELSE CAST(1 AS BIGINT) END"
KEPT_SQL = "LEFT JOIN kept ON metadata.sample_id = kept.sample_id"

LINKS_SQL = f"""
SELECT src, dst, min(similarity) AS similarity, min(distance) AS distance
FROM (
    SELECT src, dst, similarity, distance FROM edges WHERE {NEAR_SQL}
    UNION ALL
    SELECT CASE WHEN groups.anchor_id < groups.sample_id THEN groups.anchor_id ELSE groups.sample_id END AS src,
           CASE WHEN groups.anchor_id < groups.sample_id THEN groups.sample_id ELSE groups.anchor_id END AS dst,
           groups.similarity_to_anchor AS similarity, groups.distance_to_anchor AS distance
    FROM groups LEFT JOIN exact ON groups.sample_id = exact.sample_id
    WHERE exact.sample_id IS NULL AND groups.anchor_id <> groups.sample_id
) AS links
GROUP BY src, dst
ORDER BY src, dst
"""  # noqa: S608 (a condition of our own)

LINKS = pa.schema([("src", pa.int64()), ("dst", pa.int64()), ("similarity", pa.float32()), ("distance", pa.float32())])
ORDER_SCHEMA = pa.schema([(name, pa.int64()) for name in ("component_id", "sample_id", "representative_id", "is_kept")])


@dataclass(frozen=True)
class KeepTask:
    """Members of whole groups in the order of the keep policy."""

    run: Run
    representative_ids: Ids
    min_similarity: Sims
    bounds: Ids
    n_forced: Ids


def policy_sql(config: Config, table: str = "metadata") -> str:
    """The ORDER BY terms of a run's keep policy over a table; see `parse_order` for what it raises.

    `table`: `metadata`, with `edits` beside it, or a table that has all the columns.
    """
    keep = config.keep
    terms = parse_order(keep.order_by, config.input.carry, [absolute(path) for path in keep.prefer])
    return ", ".join(term_sql(term, table) for term in terms)


def term_sql(term: OrderTerm, table: str = "metadata") -> str:
    """One ORDER BY term, from whitelisted names and quoted texts only; `table`: as of `policy_sql`.

    >>> from dedup.config.order import parse_order
    >>> [term_sql(term) for term in parse_order(["width*height desc", "originality desc"])]
    ['CAST(metadata.width AS BIGINT) * metadata.height DESC NULLS LAST', 'edits.originality DESC NULLS LAST']
    >>> term_sql(parse_order(["has_caption desc"])[0])
    'CASE WHEN metadata.caption IS NULL THEN 0 ELSE 1 END DESC NULLS LAST'
    """
    home = "edits" if term.name == "originality" and table == "metadata" else table
    first, *others = (f"{home}.{column}" for column in term.columns)
    value = " * ".join([f"CAST({first} AS BIGINT)", *others]) if others else first
    if term.is_presence:
        value = f"CASE WHEN {first} IS NULL THEN 0 ELSE 1 END"
    elif term.is_path:
        path = f"concat({first}, CASE WHEN substr({first}, length({first}), 1) = '/' THEN {others[0]} ELSE '' END)"
        value = _rank_sql(path, term.prefixes) if term.prefixes else path
    return f"{value} {'DESC' if term.is_descending else 'ASC'} NULLS LAST"


def _rank_sql(path: str, prefixes: Sequence[str]) -> str:
    """Which of some files and folders is or holds a path; see `dedup.config.order.rank_of`."""
    cases = []
    for rank, prefix in enumerate(prefixes):
        text = sql_text(prefix)
        within = sql_text(f"{prefix}/")
        cases.append(f"WHEN {path} = {text} OR substr({path}, 1, {len(prefix) + 1}) = {within} THEN {rank}")
    return f"CASE {' '.join(cases)} ELSE {len(prefixes)} END"


def sql_text(text: str) -> str:
    r"""A text in SQL; a backslash by its number, as only some engines read it as the beginning of another character.

    >>> sql_text("it's"), sql_text("a\\b")
    ("'it''s'", "concat('a', chr(92), 'b')")
    """
    quoted = ["'" + part.replace("'", "''") + "'" for part in text.split("\\")]
    return f"concat({', chr(92), '.join(quoted)})" if len(quoted) > 1 else quoted[0]


def choose_keepers(task: KeepTask) -> tuple[Ids, Sims]:
    """Position in the task of each member's keeper (a keeper's own), and the similarity to it."""
    store, reps = task.run.vectors(), task.representative_ids
    keeper = np.arange(len(reps), dtype=np.int64)
    similarity = np.ones(len(reps), dtype=np.float32)
    starts, lengths = task.bounds[:-1], np.diff(task.bounds)
    is_pair = (lengths == 2) & (task.n_forced == 1)
    pairs = starts[is_pair]
    similar = exact_similarity(store.take(reps[pairs + 1]), store.take(reps[pairs]))
    similar = np.where(reps[pairs + 1] == reps[pairs], np.float32(1.0), similar)
    near = (similar >= np.maximum(task.min_similarity[pairs], task.min_similarity[pairs + 1])) | (reps[pairs + 1] == reps[pairs])
    keeper[pairs[near] + 1], similarity[pairs[near] + 1] = pairs[near], similar[near]
    for start, stop, n_forced in zip(starts[~is_pair], task.bounds[1:][~is_pair], task.n_forced[~is_pair].tolist(), strict=True):
        distinct, first, rows = np.unique(reps[start:stop], return_index=True, return_inverse=True)
        thresholds = task.min_similarity[start:stop][first]
        chosen, similar = greedy_cover(store.take(distinct), thresholds, rows.astype(np.int64), n_forced=n_forced, nearest=True)
        keeper[start:stop], similarity[start:stop] = start + chosen, similar
    return keeper, similarity


def keepers(context: StageContext, compared: pa.Table) -> pa.Table:
    """Decide every group.

    `compared`: of `LINKS`; copies that were compared beyond the edges.
    Returns `sample_id, keeper_id, similarity_to_keeper, distance_to_keeper`; a keeper's keeper_id is its own.
    """
    run, keep = context.run, context.config.keep
    policy = policy_sql(context.config)
    kept = {"kept": context.base.table("manifest")} if context.base is not None and keep.prefer_base else {}
    query = ORDER_SQL.format(
        policy=policy, edits=EDITS_SQL, is_kept=IS_KEPT_SQL if kept else "CAST(0 AS BIGINT)", kept=KEPT_SQL if kept else ""
    )
    tables = {name: run.table(name) for name in ("groups", "metadata", "exact", "exclusions", "edits")} | kept
    members = ask(context.engine, query, tables, ORDER_SCHEMA)
    decided = with_whole_samples(context, *(members[name].to_numpy() for name in ORDER_SCHEMA.names))
    component, ids, reps, is_kept = decided.group, decided.ids, decided.representatives, decided.is_kept
    bounds = component_slices(component)
    # of each group, all that the base kept, and at least `keep.per_component`
    n_forced = np.maximum(np.add.reduceat(is_kept, bounds[:-1]) if len(ids) else is_kept, keep.per_component)
    settings = context.judge_settings
    if settings is not None:
        # confirmed already: the edges, and each representative with the anchor of its group
        links = ask(context.engine, LINKS_SQL, {name: run.table(name) for name in ("edges", "groups", "exact")}, LINKS)
        links = pa.concat_tables([links, compared])
        covered = cover(context, settings, "manifest", component, reps, links, n_forced)
        return _table(ids, decided.only_whole(covered.anchor), covered.similarity, covered.distance)
    thresholds = min_similarity_of(context, reps)

    cuts = np.unique(np.searchsorted(bounds, np.arange(0, len(ids) + _TASK_ROWS, _TASK_ROWS)).clip(0, len(bounds) - 1))
    tasks = []
    for first, last in zip(cuts[:-1], cuts[1:], strict=True):
        rows = slice(bounds[first], bounds[last])
        offsets = bounds[first : last + 1] - bounds[first]
        tasks.append(KeepTask(context.run, reps[rows], thresholds[rows], offsets, n_forced[first:last]))
    keeper, similarity = np.empty(len(ids), dtype=np.int64), np.empty(len(ids), dtype=np.float32)
    sizes = [len(task.representative_ids) for task in tasks]
    for number, (chosen, similar) in context.run_tasks("manifest", "members", choose_keepers, tasks, sizes):
        rows = slice(bounds[cuts[number]], bounds[cuts[number + 1]])
        keeper[rows], similarity[rows] = chosen + bounds[cuts[number]], similar
    return _table(ids, decided.only_whole(keeper), similarity, np.full(len(ids), np.nan, dtype=np.float32))


def _table(ids: Ids, keeper: Ids, similarity: Sims, distance: npt.NDArray[np.float32]) -> pa.Table:
    return pa.table(
        {
            "sample_id": ids,
            "keeper_id": ids[keeper],
            "similarity_to_keeper": similarity,
            "distance_to_keeper": pa.array(distance, from_pandas=True),
        }
    )
