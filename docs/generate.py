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

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))

from architecture import architecture_svg  # noqa: E402
from generate_reference import NOTE, commands_md, python_md  # noqa: E402

TABLES = {
    "partitions": ("partitions/part-*.parquet", "Each shard, the partition it went to, and whether it could be read."),
    "metadata": (
        "embeddings/metadata/metadata_NNNNN.parquet",
        "One row per embedded sample, in the row order of `embeddings/img_emb/img_emb_NNNNN.npy` (float16, unit rows); one file per "
        "partition. This is clip-retrieval's layout.",
    ),
    "rejected": (
        "embeddings/rejected/rejected_NNNNN.parquet",
        "One row per sample that could not be embedded. Metadata and rejected together are the samples seen.",
    ),
    "representatives": ("index/representatives/part-*.parquet", "One row per distinct image (by SHA-256): what is searched."),
    "exact": ("index/exact/part-*.parquet", "Samples that share their bytes with an earlier one: all but the representatives."),
    "assignments": ("index/assignments/part-*.parquet", "The inverted lists each distinct image is compared in."),
    "neighbors": ("neighbors/part-*.parquet", "How many others each sample resembles; each pair is counted once."),
    "candidates": (
        "candidates/part-*.parquet",
        "Pairs that are similar: a maximum-similarity spanning forest and each image's best edges, not all pairs; and a row per "
        "byte-identical copy.",
    ),
    "edges": (
        "edges/part-*.parquet",
        "The candidates that a look at the pixels confirmed (those between images that others connect already are not looked at), the "
        "pairs found while looking again where others were refused, and the byte-identical copies.",
    ),
    "refused": (
        "refused/*.parquet",
        "The pairs that a look at the pixels refused, and why: candidates, and pairs of a group that were not candidates themselves.",
    ),
    "groups": ("groups/part-*.parquet", "The members of every group of copies; unique samples have no row."),
    "manifest": ("manifest/part-*.parquet", "The cleaned data set: every sample that is kept. Carried columns come last."),
    "duplicates": (
        "duplicates/part-*.parquet",
        "Every sample that is dropped, with the kept sample it is a copy of. Carried columns come last.",
    ),
    "exclusions": (
        "exclusions/part-*.parquet",
        "One row per sample that must not be trained on, whatever the keep policy says: near a reference image, named by a list, or a copy "
        "of a named one.",
    ),
    "excluded": (
        "excluded/part-*.parquet",
        "Samples left out because they resemble a reference image or stand on a list. Manifest, duplicates, excluded and rejected "
        "together are all samples: every run checks it.",
    ),
    "statistics": ("statistics/part-*.parquet", "One row per group of two or more: duplication counts."),
    "captions": ("captions/part-*.parquet", "The captions of every group with their counts."),
    "histogram": ("histogram/part-*.parquet", "How many groups have each size."),
    "candidate_counts": (
        "candidate_counts/part-*.parquet",
        "How many of the candidates that were looked at each encoder found, confirmed and refused.",
    ),
    "target_captions": (
        "target_captions/part-*.parquet",
        "The captions of each target's group, the ten most frequent: what else it may be prompted with.",
    ),
    "targets": (
        "targets/part-*.parquet",
        "What the extraction attack generates: one row per group with a caption, the most duplicated first.",
    ),
}
OTHER_FILES = {
    "embeddings/img_emb/img_emb_NNNNN.npy": "Vectors: NumPy, float16, one unit row per row of `metadata_NNNNN.parquet`.",
    "embeddings/thumbnails/thumbnails_NNNNN.bin": (
        "With `embed.thumbnails`: a JPEG of each row of `metadata_NNNNN.parquet`, one after another, its longer side at most 160 pixels."
    ),
    "embeddings/thumbnails/offsets_NNNNN.npy": (
        "Where they start: NumPy, int64, one more than there are rows; row i is the bytes from `offsets[i]` to `offsets[i + 1]`."
    ),
    "embeddings/img_inner/": (
        "Vectors of pictures inside a frame, for images that have one: `img_inner_NNNNN.npy`, float16 unit rows, and `sample_id_NNNNN.npy`."
    ),
    "also/dct/": (
        "With `embed.also=dct`: the vectors, lists and candidates of that second source, laid out as a run's own (`embeddings/`, `index/`, "
        "`candidates/`); samples are those of `metadata`."
    ),
    "index/quantizer.npz": "Axes and centroids of the inverted lists: NumPy, float32; one centroid where there is one list.",
    "index/looks/": (
        "Second looks at each image: `vector-NNNNN.npy`, float16 unit rows along their principal axes; `look-NNNNN.npy`, what each is a "
        "look at and its inverted lists; `quantizer.npz`, axes and centroids. Absent with `search.views=false`."
    ),
    "index/index.faiss": "The FAISS index over the distinct images; its ids are `sample_id`, and its lists lie in `index/index.ivfdata`.",
    "index/index.ivfdata": "Codes and ids of the FAISS index, list by list; mapped into memory.",
    "index/_index.json": "Figures of the index: lists, lists per image, dimensions, and the sizes of its files.",
    "report.html": "The report of the run; see `docs/report.md`. Made anew by `dedup report`, or by a run that changed something.",
    "_config.json": "The configuration the run was made with, without `engine`: what `dedup.open_index` takes encoder and thresholds from.",
    "_lock.json": "Who writes the run just now: process, host, user, since when; empty, or absent, when nobody does.",
    "*/_stage.json": (
        "Where a stage's output comes from: `stage`, `output_version`, `config` (the keys the result depends on), `inputs` (digests), "
        "`encoder` (model, preprocessing, decoder), `rows` per table, `seconds`, `finished` (UTC), `dedup_version`, `summary`. A stage "
        "whose record matches is skipped."
    ),
    "statistics/_summary.json": (
        "Totals: `n_images`, `n_unique`, `n_components`, `largest_component`, `candidates` (who found them: confirmed, refused)."
    ),
    "targets/_targets.jsonl": "The table `targets` as JSON lines, one object per row with the same names.",
}


def tables_md() -> str:
    """Every table and file of a run directory."""
    parts = [
        "# Tables",
        NOTE.format(source="`dedup/schemas/` or `docs/generate.py`"),
        "All tables are parquet and lie under the run directory. Each folder holds only parquet and names that start with `_` or `.`; "
        "a table without rows still has one file with its schema. Columns may hold nulls only where it says so.",
        _grid(("table", "files"), [(f"[{name}](#{name})", f"`{TABLES[name][0]}`") for name in schemas.TABLES]),
    ]
    for name, schema in schemas.TABLES.items():
        files, purpose = TABLES[name]
        parts += [f"## {name}", purpose, f"Files: `{files}`", _columns(schema)]
        if name == "rejected":
            reasons = [(f"`{reason}`", meaning) for reason, meaning in schemas.REJECT_REASONS.items()]
            parts += ["Reasons:", _grid(("reason", "meaning"), reasons)]
    parts += scores()
    carried = [(f"`{name}`", f"`{_type(kind)}`") for name, kind in schemas.CARRIED_TYPES.items()]
    parts += [
        "## Carried columns",
        "The names in `input.carry` are appended, with nulls allowed, to metadata, manifest, duplicates and excluded. They are strings "
        "but for these:",
        _grid(("column", "type"), carried),
        "## Other files",
        _grid(("file", "what it holds"), [(f"`{name}`", meaning) for name, meaning in OTHER_FILES.items()]),
    ]
    return "\n\n".join(parts) + "\n"


def scores() -> list[str]:
    """What commands over a finished run write, in folders or files of their own."""
    written = (
        ("scores", "What `dedup extraction score` writes into its `--out`: a row per target.", "part-*.parquet", schemas.SCORES),
        (
            "outliers",
            "What `dedup extraction outliers` writes into its `--out`: a row per image, the farthest first; and the same rows as "
            "`_outliers.jsonl`.",
            "part-*.parquet",
            schemas.OUTLIERS,
        ),
        (
            "flags",
            "What `dedup flag` writes as its `--out`: a row per image.",
            "FILE.parquet",
            schemas.FLAGS,
        ),
        (
            "calibration thresholds",
            "What `dedup calibrate` says of each threshold; [calibration.md](calibration.md) explains it. Beside its folders of tables lie "
            "`_calibration.json`, `calibration.yaml` and `calibration.png`.",
            "calibration/thresholds/part-*.parquet",
            schemas.CALIBRATION,
        ),
        (
            "calibration recalls",
            "What it says of each planted change at each threshold.",
            "calibration/recalls/part-*.parquet",
            schemas.CALIBRATION_RECALLS,
        ),
        ("calibration copies", "The copies it planted, a row each.", "calibration/copies/part-*.parquet", schemas.CALIBRATION_COPIES),
        ("calibration pairs", "The pairs it looked at.", "calibration/pairs/part-*.parquet", schemas.CALIBRATION_PAIRS),
        ("sweep", "What `dedup extraction sweep` writes as its `--out`: a row per threshold.", "*.parquet or *.csv", schemas.SWEEP),
    )
    return [part for name, purpose, files, schema in written for part in (f"## {name}", purpose, f"Files: `{files}`", _columns(schema))]


def configuration_md() -> str:
    """Every configuration key."""
    parts = [
        "# Configuration",
        NOTE.format(source="`dedup/config/keys.py`"),
        "Values come from the defaults, then the YAML file given with `-c`, then `section.key=value` on the command line. On the command "
        "line text stands for itself and is never parsed as YAML: `input.shards=/data/{00000..00999}.tar` needs quotes only against the "
        "shell. `input.shards` may be given several times; the first one replaces what the file says. `keep.order_by` and `input.carry` "
        "take `a,b` or `[a, b]`. In YAML, `${oc.env:NAME}` and other OmegaConf interpolations are resolved. "
        "[`conf/default.yaml`](../conf/default.yaml) holds every key with its default; `dedup config` prints them.",
        "The last column names the stage that depends on a key: another value makes that stage, and those after it, run again with "
        "`--redo`. Keys that are `free` may change from one call to the next; where they say what is read, or by which model, the files "
        "and the model are compared instead.",
    ]
    for section, cls in _sections().items():
        rows = [
            (f"`{name}`", f"`{key.type_name}`", f"`{json.dumps(key.default)}`", key.meaning, key.facts.stage)
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
