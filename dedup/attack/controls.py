"""Controls: unique images matched to targets, so that no detector learns what was repeated from a prompt's length or language."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dedup.attack.target_list import read_targets
from dedup.attack.training import SAME_IMAGE_SQL
from dedup.contracts import Engine, Table
from dedup.engines.local import engine_or_own
from dedup.errors import InputError
from dedup.runs.directory import Run
from dedup.schemas import CONTROLS, METADATA
from dedup.stages.targets import captions_sql, keepers_sql
from dedup.storage.atomic import AtomicFile
from dedup.storage.tables import ask, clear, dataset
from dedup.storage.urls import join

# steps of a doubling, finest first, in which lengths, frequencies and sizes must agree; 0 = they need not
_LEVELS = ((4, 4, 4), (2, 2, 2), (1, 1, 1), (1, 1, 0), (1, 0, 0))
_SHOWN = ("component_id", "caption", "duplication_count", "url", "shard", "key", "byte_offset", "n_bytes")
_COVARIATES = ("caption_length", "n_caption_samples", "n_pixels")

# what is compared, of every sample that is kept: its language is a carried column, or one text for all
_FACTS_SQL = """
SELECT manifest.sample_id AS sample_id, manifest.sha256 AS sha256, manifest.component_id AS component_id, manifest.caption AS caption,
       manifest.duplication_count AS duplication_count, manifest.url AS url, manifest.shard AS shard, manifest.key AS key,
       manifest.byte_offset AS byte_offset, manifest.n_bytes AS n_bytes, COALESCE({language}, '') AS language,
       CAST(length(manifest.caption) AS BIGINT) AS caption_length, common.n_caption_samples AS n_caption_samples,
       CAST(manifest.width AS BIGINT) * manifest.height AS n_pixels{carried}
FROM manifest
JOIN (SELECT caption, count(*) AS n_caption_samples FROM metadata WHERE caption IS NOT NULL GROUP BY caption) AS common
  ON manifest.caption = common.caption
"""
# unique: in no group of copies, no template and no scene
CANDIDATES_SQL = """
SELECT facts.sample_id, facts.sha256, facts.component_id, facts.caption, facts.duplication_count, facts.url, facts.shard, facts.key,
       facts.byte_offset, facts.n_bytes, facts.language, facts.caption_length, facts.n_caption_samples, facts.n_pixels
FROM ({facts}) AS facts
LEFT JOIN templates ON facts.sample_id = templates.sample_id
LEFT JOIN scenes ON facts.sample_id = scenes.sample_id
LEFT JOIN (SELECT DISTINCT target_id FROM targets) AS chosen ON substr(facts.sha256, 1, 16) = chosen.target_id
WHERE facts.duplication_count = 1 AND templates.sample_id IS NULL AND scenes.sample_id IS NULL AND chosen.target_id IS NULL AND {is_prompt}
ORDER BY facts.sample_id
"""
# the prompt of a target is its group's most frequent caption, not always that of the kept sample
WANTED_SQL = """
SELECT number, target_id, language, caption_length, n_caption_samples, n_pixels
FROM (
SELECT targets.number AS number, targets.target_id AS target_id, COALESCE({language}, '') AS language,
       CAST(length(targets.caption) AS BIGINT) AS caption_length, common.n_caption_samples AS n_caption_samples,
       CAST(metadata.width AS BIGINT) * metadata.height AS n_pixels,
       row_number() OVER (PARTITION BY targets.number ORDER BY metadata.sample_id) AS place
FROM targets
JOIN manifest AS metadata ON {same_image}
JOIN (SELECT caption, count(*) AS n_caption_samples FROM samples WHERE caption IS NOT NULL GROUP BY caption) AS common
  ON targets.caption = common.caption
) AS found
WHERE place = 1
ORDER BY number
"""
# within a stratum targets and candidates are paired by their order: of targets the rank, of candidates the hash of their bytes
MATCH_SQL = """
SELECT w.number AS number, w.target_id AS matched_to, c.sample_id AS sample_id
FROM (
  SELECT wanted.*, row_number() OVER (PARTITION BY {wanted_stratum} ORDER BY wanted.number) AS place
  FROM wanted LEFT JOIN matched ON wanted.number = matched.number
  WHERE matched.number IS NULL
) AS w
JOIN (
  SELECT candidates.*, row_number() OVER (PARTITION BY {candidate_stratum} ORDER BY candidates.sha256, candidates.sample_id) AS place
  FROM candidates LEFT JOIN matched ON candidates.sample_id = matched.sample_id
  WHERE matched.sample_id IS NULL
) AS c ON w.place = c.place AND {same}
ORDER BY number
"""
CONTROLS_SQL = """
SELECT matched.number + 1 AS rank, substr(candidates.sha256, 1, 16) AS target_id, candidates.component_id AS component_id,
       candidates.caption AS caption, candidates.duplication_count AS duplication_count, candidates.url AS url, candidates.shard AS shard,
       candidates.key AS key, candidates.byte_offset AS byte_offset, candidates.n_bytes AS n_bytes,
       CAST({n_generations} AS INTEGER) AS n_generations, matched.matched_to AS matched_to, CAST(matched.level AS INTEGER) AS level,
       candidates.language AS language, candidates.caption_length AS caption_length, candidates.n_caption_samples AS n_caption_samples,
       candidates.n_pixels AS n_pixels, wanted.caption_length AS target_caption_length,
       wanted.n_caption_samples AS target_n_caption_samples, wanted.n_pixels AS target_n_pixels
FROM matched
JOIN candidates ON matched.sample_id = candidates.sample_id
JOIN wanted ON matched.number = wanted.number
ORDER BY matched.number
"""
_FACTS = [("language", pa.string()), ("caption_length", pa.int64()), ("n_caption_samples", pa.int64()), ("n_pixels", pa.int64())]
_WANTED = pa.schema([("number", pa.int64()), ("target_id", pa.string()), *_FACTS])
_CANDIDATES = pa.schema([*(METADATA.field(name) for name in ("sample_id", "sha256")), *(CONTROLS.field(name) for name in _SHOWN), *_FACTS])
_MATCHED = pa.schema([("number", pa.int64()), ("matched_to", pa.string()), ("sample_id", pa.int64()), ("level", pa.int32())])


@dataclass(frozen=True)
class ControlSummary:
    """How many targets have a control, and how alike the two sets are."""

    out: str
    n_targets: int
    n_known: int  # of these, targets with a caption whose image the run keeps: others can't be matched
    n_controls: int
    n_candidates: int  # unique images with a prompt
    n_by_level: list[int] = field(default_factory=list)  # controls found at each level, the closest first
    # of each covariate: difference of the means of log2, in standard deviations of both; below 0.1 counts as balanced
    # None where all are equal in both, or there are fewer than two
    imbalance: dict[str, float | None] = field(default_factory=dict)


def find_controls(run_dir: str, targets: str = "", out: str = "", *, engine: Engine | None = None) -> ControlSummary:
    """Match each target with a unique image of the same run.

    Parameters
    ----------
    run_dir : str
        A finished run.
    targets : str
        Its `targets/` by default; or outliers, or parquet with `target_id, caption, shard, key`.
    out : str
        Folder for the table `dedup.schemas.CONTROLS` and `_controls.jsonl`; RUN_DIR/controls by default.
    engine : Engine
        By default processes on this machine.

    Raises
    ------
    RunDirectoryError
        If the run is not finished.
    InputError
        If targets can't be read, or there is no unique image with a caption.

    Notes
    -----
    Matched 1:1 without replacement, by coarsened exact matching (Iacus, King and Porro 2012): a control has its target's language, and the
    same quarter of a doubling in caption length, in the number of samples with its caption, and in pixels. Targets left over are
    matched by halves, by doublings, then without size, then without frequency; `level` says which. What is not matched has no row.
    """
    run = Run.open(run_dir, ("embed", "groups", "manifest"))
    out = out or run.path("controls")
    with engine_or_own(engine) as engine:
        return _find(run, targets or run.path("targets"), out, engine)


def _find(run: Run, url: str, out: str, engine: Engine) -> ControlSummary:
    columns = ("target_id", "caption", "shard", "key", "byte_offset")
    rows = read_targets(url, columns).rows
    config = run.config.targets
    has_language = config.language_column in run.table("manifest").schema.names
    language = f"CAST({{}}.{config.language_column} AS STRING)" if has_language else "CAST(NULL AS STRING)"
    used = [config.language_column] * bool(config.language) + ["punsafe"] * (config.max_punsafe < 1)
    carried = "".join(f", manifest.{name} AS {name}" for name in used)
    facts = _FACTS_SQL.format(language=language.format("manifest"), carried=carried)
    tables = {name: run.table(name) for name in ("manifest", "metadata", "templates", "scenes")}
    numbered = pa.table({"number": pa.array(range(len(rows)), pa.int64())} | {name: rows[name] for name in columns})
    scratch = {name: Table(join(out, f"_{name}"), schema) for name, schema in (("candidates", _CANDIDATES), ("wanted", _WANTED))}
    for table in scratch.values():
        clear(table)
    conditions = f"{captions_sql(config)} AND {keepers_sql(config, 'facts')}"
    query = CANDIDATES_SQL.format(facts=facts, is_prompt=conditions)
    n_candidates = engine.sql_to(query, {**tables, "targets": numbered}, scratch["candidates"])
    if not n_candidates:
        raise InputError(f"{run}: no unique image has a caption; expected some to serve as controls")
    wanted_sql = WANTED_SQL.format(language=language.format("metadata"), same_image=SAME_IMAGE_SQL)
    n_known = engine.sql_to(
        wanted_sql, {"targets": numbered, "manifest": tables["manifest"], "samples": tables["metadata"]}, scratch["wanted"]
    )
    matched = _MATCHED.empty_table()
    for level, steps in enumerate(_LEVELS):
        new = ask(engine, _match_sql(steps), {**scratch, "matched": matched}, _MATCHED.remove(3))
        matched = pa.concat_tables([matched, new.append_column("level", pa.array(np.full(len(new), level, np.int32)))])
    controls = Table(out, CONTROLS)
    clear(controls)
    query = CONTROLS_SQL.format(n_generations=config.n_generations)
    n_controls = engine.sql_to(query, {**scratch, "matched": matched}, controls)
    for table in scratch.values():
        clear(table)
    _write_lines(controls)
    levels = np.bincount(matched["level"].to_numpy(), minlength=len(_LEVELS)).tolist()
    return ControlSummary(out, len(rows), n_known, n_controls, n_candidates, levels, _imbalance(controls))


def _match_sql(steps: tuple[int, int, int]) -> str:
    used = [(name, step) for name, step in zip(_COVARIATES, steps, strict=True) if step]

    def cells(table: str) -> list[str]:
        return [f"{table}.language", *(f"CAST(floor(log2(greatest({table}.{name}, 1)) * {step}) AS INTEGER)" for name, step in used)]

    same = " AND ".join(f"{a} = {b}" for a, b in zip(cells("w"), cells("c"), strict=True))
    return MATCH_SQL.format(wanted_stratum=", ".join(cells("wanted")), candidate_stratum=", ".join(cells("candidates")), same=same)


def _write_lines(controls: Table) -> None:
    with AtomicFile(join(controls.path, "_controls.jsonl")) as lines:
        for batch in dataset(controls).to_batches(batch_size=4_096):
            lines.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in batch.to_pylist())


def _imbalance(controls: Table) -> dict[str, float | None]:
    """Standardised differences of the means of targets and controls, in log2; targets without a control do not count."""
    names = [f"{prefix}{name}" for name in _COVARIATES for prefix in ("", "target_")]
    table = dataset(controls).to_table(columns=names)
    found: dict[str, float | None] = {}
    for name in _COVARIATES:
        own, other = (pc.log2(pc.max_element_wise(table[column].cast(pa.float64()), 1.0)).to_numpy() for column in (name, f"target_{name}"))
        if len(own) < 2:
            found[name] = None
            continue
        apart, spread = abs(float(own.mean() - other.mean())), float(np.sqrt((own.var() + other.var()) / 2))
        found[name] = apart / spread if spread else None if apart else 0.0
    return found
