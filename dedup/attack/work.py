"""What is still to be generated: a list of prompts with seeds, split into parts, that can be made again at any time."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pyarrow.dataset as ds

from dedup.contracts import JsonDict
from dedup.errors import ConfigError, InputError
from dedup.storage.atomic import AtomicFile
from dedup.storage.input.samples import IMAGE_SUFFIXES, one_line
from dedup.storage.urls import filesystem, join

_SEED_BITS = 16  # seeds of a target: as many generations as anyone makes of one prompt
_ID_DIGITS = 11  # of the target_id that a seed begins with: 44 bits, so that seeds stay below 2^63


def first_seed(target_id: str) -> int:
    """Seed of a target's first generation; the following ones are the next numbers, and no two targets share any.

    It depends on the target alone, so that a longer list, or another split, makes no image twice.

    Examples
    --------
    >>> first_seed("000000000010abcd")
    65536
    """
    try:
        return int(target_id[:_ID_DIGITS], 16) << _SEED_BITS
    except ValueError as error:
        raise InputError(f"target_id {target_id!r} is not a number; expected hex digits as in a run's targets/") from error


def write_work(targets: str, out: str, *, n_parts: int = 1, generations: str = "") -> list[tuple[str, int, int]]:
    """Write what is to be generated, a line a target: `target_id, prompt, first_seed, n_generations`.

    `targets`: a run's `targets/` folder.
    `out`: folder for `part-00000.jsonl` and so on.
    `n_parts`: targets are dealt out by rank, so that all parts cost the same.
    `generations`: folder whose `TARGET_ID/` hold what was generated before: it counts as the first seeds of each target, and targets that
    have all are left out.
    Returns list of (path, targets, images); of each part.
    Raises ConfigError if n_parts is below 1.
    Raises InputError if the targets can't be read.
    """
    if n_parts < 1:
        raise ConfigError(f"--n-parts={n_parts}; expected 1 or more")
    parts = [AtomicFile(join(out, f"part-{number:05d}.jsonl")) for number in range(n_parts)]
    n_targets, n_images = [0] * n_parts, [0] * n_parts
    try:
        for rank, row in enumerate(_rows(targets)):
            n_done = _n_images(join(generations, row["target_id"])) if generations else 0
            if (n_left := row["n_generations"] - n_done) > 0:
                line = {"target_id": row["target_id"], "prompt": row["caption"], "first_seed": first_seed(row["target_id"]) + n_done}
                parts[rank % n_parts].file.write(json.dumps(line | {"n_generations": n_left}, ensure_ascii=False).encode() + b"\n")
                n_targets[rank % n_parts] += 1
                n_images[rank % n_parts] += n_left
        for part in parts:
            part.close()
    except BaseException:
        for part in parts:
            part.abort()
        raise
    return [(join(out, f"part-{number:05d}.jsonl"), n_targets[number], n_images[number]) for number in range(n_parts)]


def _rows(targets: str) -> Iterator[JsonDict]:
    fs, path = filesystem(targets.rstrip("/"))
    try:
        names = sorted(str(name) for name in fs.glob(join(path, "*.parquet"))) if fs.isdir(path) else [path]
        found = ds.dataset(names, format="parquet", filesystem=fs)
        for batch in found.to_batches(columns=["target_id", "caption", "n_generations"], batch_size=4_096):
            yield from batch.to_pylist()
    except (OSError, ValueError) as error:
        raise InputError(f"{targets} can't be read as targets: {one_line(error)}; expected a run's targets/ folder") from error


def _n_images(folder: str) -> int:
    fs, path = filesystem(folder)
    names = fs.ls(path, detail=False) if fs.isdir(path) else []
    return sum(str(name).rpartition(".")[2].lower() in IMAGE_SUFFIXES for name in names)
