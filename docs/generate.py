"""Write the generated documentation: `make docs`.

`docs/tables.md` comes from `dedup.schemas`, `docs/configuration.md` and `conf/default.yaml` from `dedup.config`, `docs/commands.md` and
`docs/python.md` from the commands and docstrings, the drawing of `docs/architecture.md` from the imports; `tests/test_docs.py` holds the
files to what is generated here.
"""

from __future__ import annotations

import json
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from dedup import schemas
from dedup.config import Config
from dedup.config.keys import KEYS
from dedup.numerics.judge.compare import REASONS
from dedup.numerics.judge.relation import RELATIONS

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))

from architecture import architecture_svg  # noqa: E402
from generate_reference import NOTE, commands_md, python_md  # noqa: E402

TABLES = {
    "partitions": ("partitions/part-*.parquet", "Each shard, its partition, and whether it could be read."),
    "metadata": (
        "embeddings/metadata/metadata_NNNNN.parquet",
        "One row per embedded sample, in the row order of `embeddings/img_emb/img_emb_NNNNN.npy` (float16, unit rows); one file per "
        "partition. The layout is clip-retrieval's.",
    ),
    "rejected": (
        "embeddings/rejected/rejected_NNNNN.parquet",
        "One row per sample whose image can't be read. Metadata and rejected together are all samples.",
    ),
    "representatives": ("index/representatives/part-*.parquet", "One row per distinct image (by SHA-256); these are searched."),
    "exact": ("index/exact/part-*.parquet", "Samples with the same bytes as an earlier one: all that are not representatives."),
    "assignments": ("index/assignments/part-*.parquet", "The inverted lists in which each distinct image is compared."),
    "neighbors": (
        "neighbors/part-*.parquet",
        "How many other samples each one is similar to; each pair is counted once.",
    ),
    "candidates": (
        "candidates/part-*.parquet",
        "Similar pairs: a maximum-similarity spanning forest and each image's best edges, not all pairs; and a row per "
        "byte-identical copy.",
    ),
    "edges": (
        "edges/part-*.parquet",
        "The candidates that the judge confirmed by their pixels (pairs of images that are already connected are not judged), the "
        "pairs found when searching again where others were refused, and the byte-identical copies.",
    ),
    "refused": (
        "refused/*.parquet",
        "The pairs that the judge refused by their pixels, and why: candidates, and pairs within a group that were not candidates.",
    ),
    "groups": ("groups/part-*.parquet", "The members of every group of copies; unique samples have no row."),
    "templates": (
        "templates/part-*.parquet",
        "Samples that share a layout or ground with others, on which something else is written, drawn or shown: no copies. Components "
        "of the pairs of `refused` with the relation template, between groups.",
    ),
    "template_counts": ("template_counts/part-*.parquet", "A row per template: how many there are of it, and what they have in common."),
    "scenes": (
        "scenes/part-*.parquet",
        "Samples that show one place or thing at other moments, or with other things in it: no copies. Components of the pairs of "
        "`refused` with the relation scene, between groups.",
    ),
    "scene_counts": ("scene_counts/part-*.parquet", "A row per scene: how many there are of it, and what they have in common."),
    "manifest": ("manifest/part-*.parquet", "The cleaned data set: every kept sample. Carried columns come last."),
    "duplicates": (
        "duplicates/part-*.parquet",
        "Every dropped sample, with the kept sample it is a copy of. Carried columns come last.",
    ),
    "edits": (
        "edits/part-*.parquet",
        "What was done to each distinct image of a group of several, as the others show it; see [which copy is kept](originality.md).",
    ),
    "edit_counts": ("edit_counts/part-*.parquet", "How many samples of the data set each edit was done to."),
    "exclusions": (
        "exclusions/part-*.parquet",
        "One row per sample that must not be trained on, whatever the keep policy says: near a reference image, named by a list, or a copy "
        "of a named sample.",
    ),
    "excluded": (
        "excluded/part-*.parquet",
        "Every excluded sample: near a reference image, or on a list. Manifest, duplicates, excluded and rejected "
        "together are all samples, each once; every run checks it.",
    ),
    "statistics": ("statistics/part-*.parquet", "One row per group of two or more: duplication counts."),
    "captions": ("captions/part-*.parquet", "The captions of every group with their counts."),
    "histogram": ("histogram/part-*.parquet", "How many groups have each size."),
    "candidate_counts": (
        "candidate_counts/part-*.parquet",
        "How many candidates found by each encoder were confirmed and refused.",
    ),
    "target_captions": (
        "target_captions/part-*.parquet",
        "The ten most frequent captions of each target's group: alternative prompts.",
    ),
    "targets": (
        "targets/part-*.parquet",
        "What to generate for the extraction attack: one row per group with a caption, the most duplicated first.",
    ),
}
REASONS_OF = {"rejected": schemas.REJECT_REASONS, "refused": REASONS}
OTHER_FILES = {
    "embeddings/img_emb/img_emb_NNNNN.npy": "Vectors: NumPy, float16, one unit row per row of `metadata_NNNNN.parquet`.",
    "embeddings/thumbnails/thumbnails_NNNNN.bin": (
        "With `embed.thumbnails`: a JPEG for each row of `metadata_NNNNN.parquet`, one after another, at most 160 pixels a side."
    ),
    "embeddings/thumbnails/offsets_NNNNN.npy": (
        "Where the thumbnails start: NumPy, int64, one more than there are rows; row i is bytes `offsets[i]` to `offsets[i + 1]`."
    ),
    "embeddings/img_inner/": (
        "Vectors of pictures inside a frame, for images that have one: `img_inner_NNNNN.npy`, float16 unit rows, and `sample_id_NNNNN.npy`."
    ),
    "also/dct/": (
        "With `embed.also=dct`: the vectors, lists and candidates of that second source, laid out like the run's own (`embeddings/`, "
        "`index/`, `candidates/`); the samples are those of `metadata`."
    ),
    "index/quantizer.npz": "Axes and centroids of the inverted lists: NumPy, float32; one centroid if there is one list.",
    "index/looks/": (
        "The views of each image: `vector-NNNNN.npy`, float16 unit rows along their principal axes; `look-NNNNN.npy`, which image and part "
        "each is a view of, and its inverted lists; `quantizer.npz`, axes and centroids. Absent with `search.views=false`."
    ),
    "index/index.faiss": "The FAISS index over the distinct images; its ids are `sample_id`, and its lists are in `index/index.ivfdata`.",
    "index/index.ivfdata": "Codes and ids of the FAISS index, list by list; mapped into memory.",
    "index/_index.json": "Figures of the index: lists, lists per image, dimensions, and the sizes of its files.",
    "report.html": "The report of the run; see `docs/report.md`. Written again by `dedup report`, or by a run that changed something.",
    "_config.json": "The configuration of the run, without `engine`; `dedup.open_index` takes encoder and thresholds from it.",
    "_lock.json": "Who is writing the run: process, host, user, since when; empty or absent if nobody is.",
    "_stages/*.json": (
        "Where a stage's output comes from: `stage`, `output_version`, `config` (the keys the result depends on), `inputs` (digests), "
        "`encoder` (model, preprocessing, decoder), `rows` per table, `seconds`, `finished` (UTC), `dedup_version`, `summary`. A stage "
        "whose record matches is skipped."
    ),
    "_summary.json": (
        "Totals: `n_images`, `n_unique`, `n_components`, `largest_component`, `n_templates` and `n_scenes` with the samples in them, "
        "`n_in_templates` and `n_in_scenes`, `candidates` (for each encoder: confirmed, refused)."
    ),
    "targets.jsonl": "The table `targets` as JSON lines, one object per row with the same names.",
}


def tables_md() -> str:
    """Every table and file of a run directory."""
    parts = [
        "# Tables",
        NOTE.format(source="`dedup/schemas/` or `docs/generate.py`"),
        "All tables are parquet, in folders of the run directory that hold nothing else once a stage is finished: "
        '`pl.read_parquet("out/manifest")`, `pandas.read_parquet`, `pyarrow.dataset.dataset`, `spark.read.parquet` and '
        '`datasets.load_dataset("parquet", data_dir="out/manifest")` open a folder, DuckDB `\'out/manifest/*.parquet\'`. A table without '
        "rows still has one file with its schema. Columns hold nulls only where it says so.",
        _grid(("table", "files"), [(f"[{name}](#{name})", f"`{TABLES[name][0]}`") for name in schemas.TABLES]),
    ]
    for name, schema in schemas.TABLES.items():
        files, purpose = TABLES[name]
        parts += [f"## {name}", purpose, f"Files: `{files}`", _columns(schema)]
        if name in REASONS_OF:
            reasons = [(f"`{reason}`", meaning) for reason, meaning in REASONS_OF[name].items()]
            parts += ["Reasons:", _grid(("reason", "meaning"), reasons)]
        if name in ("edges", "refused"):
            relations = [(f"`{relation}`", meaning) for relation, meaning in RELATIONS.items()]
            parts += ["Relations:", _grid(("relation", "meaning"), relations)]
    parts += scores()
    carried = [(f"`{name}`", f"`{_type(kind)}`") for name, kind in schemas.CARRIED_TYPES.items()]
    parts += [
        "## Carried columns",
        "The names in `input.carry` are appended, with nulls allowed, to metadata, manifest, duplicates and excluded. They are strings, "
        "except for these:",
        _grid(("column", "type"), carried),
        "## Other files",
        _grid(("file", "what it holds"), [(f"`{name}`", meaning) for name, meaning in OTHER_FILES.items()]),
    ]
    return "\n\n".join(parts) + "\n"


def scores() -> list[str]:
    """Tables that commands write from a finished run, in folders or files of their own."""
    written = (
        ("scores", "Written by `dedup extraction score --out`: a row per target.", "part-*.parquet", schemas.SCORES),
        ("patches", "Written by `dedup extraction patches --out`: a row per target and size.", "part-*.parquet", schemas.PATCHES),
        ("patch curve", "Beside it: shares of patches by size, label and duplication count.", "_curve.parquet", schemas.PATCH_CURVE),
        (
            "controls",
            "Written by `dedup extraction controls --out`: a unique image for each target; the same rows are in `_controls.jsonl`.",
            "part-*.parquet",
            schemas.CONTROLS,
        ),
        ("prompts", "Written by `dedup extraction prompts --out`: a row per prompt.", "prompts.parquet", schemas.PROMPTS),
        ("detectors", "Written by `dedup extraction join --out`: a row per detector and part.", "detectors.parquet", schemas.DETECTORS),
        (
            "generated",
            "Written by `dedup extraction generate --out`: a row per target of each list, beside the images.",
            "_generated/part-*.parquet",
            schemas.GENERATED,
        ),
        (
            "outliers",
            "Written by `dedup extraction outliers --out`: a row per image, the farthest first; the same rows are in `_outliers.jsonl`.",
            "part-*.parquet",
            schemas.OUTLIERS,
        ),
        (
            "flags",
            "Written by `dedup flag --out`: a row per image.",
            "FILE.parquet",
            schemas.FLAGS,
        ),
        (
            "calibration thresholds",
            "Written by `dedup calibrate`: a row per threshold; [calibration.md](calibration.md) explains it. Beside its folders are "
            "`_calibration.json`, `calibration.yaml` and `calibration.png`.",
            "calibration/thresholds/part-*.parquet",
            schemas.CALIBRATION,
        ),
        (
            "calibration recalls",
            "A row per planted change and threshold.",
            "calibration/recalls/part-*.parquet",
            schemas.CALIBRATION_RECALLS,
        ),
        ("calibration copies", "A row per planted copy.", "calibration/copies/part-*.parquet", schemas.CALIBRATION_COPIES),
        ("calibration pairs", "A row per judged pair.", "calibration/pairs/part-*.parquet", schemas.CALIBRATION_PAIRS),
        ("sweep", "Written by `dedup extraction sweep --out`: a row per threshold.", "*.parquet or *.csv", schemas.SWEEP),
    )
    return [part for name, purpose, files, schema in written for part in (f"## {name}", purpose, f"Files: `{files}`", _columns(schema))]


def configuration_md() -> str:
    """Every configuration key."""
    parts = [
        "# Configuration",
        NOTE.format(source="`dedup/config/keys.py`"),
        "Values come from the defaults, then from the YAML file given with `-c`, then from `section.key=value` on the command line. On the "
        "command line, values are plain text and never parsed as YAML: `input.shards=/data/{00000..00999}.tar` needs quotes only for the "
        "shell. `input.shards` may be given several times; the first one replaces the file's value. `keep.order_by` and `input.carry` "
        "take `a,b` or `[a, b]`. In YAML, `${oc.env:NAME}` and other OmegaConf interpolations are resolved. "
        "[`conf/default.yaml`](../conf/default.yaml) holds every key with its default; `dedup config` prints them.",
        "The last column names the stage that depends on a key: with another value that stage and later ones must run again (`--redo`). "
        "Keys marked `free` may change from one call to the next; where they name input or a model, the files "
        "and the model are compared instead.",
    ]
    for section, cls in _sections().items():
        rows = [
            (f"`{name}`", f"`{key.type_name}`", f"`{json.dumps(key.default)}`", key.meaning, key.stage)
            for name, key in KEYS.items()
            if name.startswith(f"{section}.")
        ]
        parts += [f"## {section}", (cls.__doc__ or "").strip(), _grid(("key", "type", "default", "meaning", "stage"), rows)]
    return "\n\n".join(parts) + "\n"


def default_yaml() -> str:
    """Every key with its default, its meaning as a comment above."""
    lines = ["# Every key with its default. " + NOTE.format(source="dedup/config/keys.py").replace("`", "")]
    for section, cls in _sections().items():
        lines += ["", f"{section}: # {(cls.__doc__ or '').strip()}"]
        for name, key in KEYS.items():
            if name.startswith(f"{section}."):
                lines += [f"  # {key.meaning}", f"  {name.partition('.')[2]}: {json.dumps(key.default)}"]
    return "\n".join(lines) + "\n"


FILES = {
    "docs/tables.md": tables_md,
    "docs/configuration.md": configuration_md,
    "docs/commands.md": lambda: commands_md(_grid),
    "docs/python.md": python_md,
    "docs/assets/architecture.svg": architecture_svg,
    "conf/default.yaml": default_yaml,
}


def _sections() -> dict[str, Any]:
    return typing.get_type_hints(Config)


def _columns(schema: pa.Schema) -> str:
    rows = []
    for field in schema:
        metadata = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        unit, nullable = metadata.get("unit", ""), "yes" if field.nullable else ""
        rows.append((f"`{field.name}`", f"`{_type(field.type)}`", unit, nullable, metadata["meaning"]))
    return _grid(("column", "type", "unit", "nulls", "meaning"), rows)


def _type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list<{_type(kind.value_type)}>"
    return {"float": "float32", "double": "float64"}.get(str(kind), str(kind))


def _grid(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    cells = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)


if __name__ == "__main__":
    for name, generate in FILES.items():
        (ROOT / name).write_text(generate(), encoding="utf-8")
        print(name)
