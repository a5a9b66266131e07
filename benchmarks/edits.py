"""Which web edits of your own photos are found, by this project and by others: screenshots, collages, stickers, filters, and chains of them.

    python benchmarks/edits.py PHOTOS --n 30 --out edits-out
    python benchmarks/edits.py PHOTOS --n 30 --out edits-out --peers-python peers/bin/python      # fastdup, imagededup, pdqhash

All files are one folder: photos and every edit of each (`edit_kinds.py`). An edit is found if a group holds it with any other
picture of its photo; a group with pictures of two photos is a false merge. Photos beyond the first N are shown in collages and the like, so that no
photo is part of another's edit; without any, coloured grounds stand in.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import Counter, defaultdict
from pathlib import Path
from random import Random
from typing import Any

import edit_kinds
import pyarrow.parquet as pq
from edit_kinds import EDITS
from lookalikes import PEERS, bars, encoded, groups_of, ours, their_pairs
from machine import describe_machine
from PIL import Image

from dedup.storage.input.samples import IMAGE_SUFFIXES

_OTHERS_EACH = 8  # more than the edits of a photo show beside it


def opened(path: Path, max_side: int) -> Image.Image:
    """A photo of at most a size."""
    with Image.open(path) as picture:
        photo = picture.convert("RGB")
    photo.thumbnail((max_side, max_side))
    return photo


def write_files(
    photos: list[Path], others: list[Path], folder: Path, kinds: list[str], max_side: int, seed: int
) -> dict[str, tuple[int, str]]:
    """Write photos and edits; returns photo and edit by file name, '' for the photo itself."""
    folder.mkdir(parents=True)
    edit_kinds.OTHERS[:] = [opened(path, max_side) for path in others]
    made = {}
    for number, path in enumerate(photos):
        photo = opened(path, max_side)
        photo.save(folder / f"{number:04d}-photo.jpg", quality=90)
        made[f"{number:04d}-photo.jpg"] = (number, "")
        for kind in kinds:
            rng = Random(f"{seed} {kind} {number}")
            suffix, data = encoded(EDITS[kind](photo, rng), rng)
            name = f"{number:04d}-{kind}.{suffix}"
            (folder / name).write_bytes(data)
            made[name] = (number, kind)
    return made


def figures(groups: dict[str, int], made: dict[str, tuple[int, str]]) -> dict[str, Any]:
    """Found edits by kind, and false merges: pairs of photos whose pictures share a group.

    `groups`: group of each file; a file without one is alone.
    """
    members: dict[int, list[str]] = defaultdict(list)
    for name, group in groups.items():
        members[group].append(name)
    found: Counter[str] = Counter()
    merged = set()
    for names in members.values():
        sizes = Counter(made[name][0] for name in names)
        found.update(made[name][1] for name in names if sizes[made[name][0]] > 1 and made[name][1])
        merged |= {(a, b) for a in sizes for b in sizes if a < b}
    return {"found": dict(found), "n_found": found.total(), "merged_photos": sorted(merged)}


def markdown(report: dict[str, Any]) -> str:
    """A row for each edit, a column for each tool: how many were found."""
    tools = {name: tool for name, tool in report["tools"].items() if "not_run" not in tool}
    lines = [f"| edit, of {report['n_photos']} photos | " + " | ".join(tools) + " |", "| --- |" + " --- |" * len(tools)]
    for kind in report["edits"]:
        lines.append(f"| {kind.replace('_', ' ')} | " + " | ".join(str(tool["found"].get(kind, 0)) for tool in tools.values()) + " |")
    n = report["n_photos"] * len(report["edits"])
    lines.append("| **all** | " + " | ".join(f"**{tool['n_found'] / n:.3f}**" for tool in tools.values()) + " |")
    lines.append("| pairs of photos merged | " + " | ".join(str(len(tool["merged_photos"])) for tool in tools.values()) + " |")
    lines.append("| seconds | " + " | ".join(f"{tool['seconds']:.0f}" for tool in tools.values()) + " |")
    missing = [f"\n- {name}: not run: {tool['not_run']}" for name, tool in report["tools"].items() if "not_run" in tool]
    return "\n".join([*lines, *missing])


def add_photo_arguments(parser: argparse.ArgumentParser, n: int) -> None:
    """What `chosen` reads; `n`: photos that are edited by default."""
    parser.add_argument("photos", type=Path, help="a folder of photos, none a copy of another")
    parser.add_argument("--n", type=int, default=n, help=f"photos that are edited ({n})")
    parser.add_argument("--kinds", help="only these edits: polaroid,inverted,…")
    parser.add_argument("--max-side", type=int, default=800, help="larger photos are first reduced to this size, in pixels (800)")
    parser.add_argument("--seed", type=int, default=0)


def chosen(options: argparse.Namespace) -> tuple[list[Path], list[Path], list[str]]:
    """Photos to edit, others that are shown beside them, and the kinds of edits."""
    paths = sorted(path for path in options.photos.rglob("*") if path.suffix[1:].lower() in IMAGE_SUFFIXES)
    Random(options.seed).shuffle(paths)
    kinds = options.kinds.split(",") if options.kinds else list(EDITS)
    return paths[: options.n], paths[options.n : options.n + _OTHERS_EACH * options.n], kinds


def main() -> None:
    """Make the edits, let every tool find them, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("edits-out"), help="files, run, edits.json and edits.png go here")
    add_photo_arguments(parser, n=30)
    parser.add_argument("--peers-python", metavar="PATH", help="a python with fastdup, imagededup and pdqhash, or some of them")
    parser.add_argument("settings", nargs="*", help="of the run: key=value")
    options = parser.parse_intermixed_args()
    photos, others, kinds = chosen(options)
    scratch, folder = options.out / "scratch", options.out / "files"
    for old in (scratch, folder):
        shutil.rmtree(old, ignore_errors=True)
    scratch.mkdir(parents=True)
    made = write_files(photos, others, folder, kinds, options.max_side, options.seed)
    report: dict[str, Any] = {
        "machine": describe_machine(), "seed": options.seed, "settings": options.settings, "n_photos": len(photos), "edits": kinds, "tools": {}
    }  # fmt: skip

    def add(name: str, groups: dict[str, int], seconds: float) -> None:
        report["tools"][name] = figures(groups, made) | {"seconds": round(seconds, 1)}
        print(f"{name}: {seconds:.0f} s", file=sys.stderr)

    seconds = ours(folder, scratch, options.settings)[1]
    tables = [pq.read_table(str(scratch / "run" / table), columns=["key", "component_id"]) for table in ("manifest", "duplicates")]
    add("dedup", {row["key"]: row["component_id"] for table in tables for row in table.to_pylist()}, seconds)
    for name, (method, threshold) in PEERS.items():
        try:
            if not options.peers_python:
                raise RuntimeError("no --peers-python given")
            names, pairs, seconds = their_pairs(options.peers_python, method, threshold, folder, scratch)
            add(name, dict(zip(names, groups_of(len(names), pairs), strict=True)), seconds)
        except RuntimeError as error:
            report["tools"][name] = {"not_run": str(error)}
    (options.out / "edits.json").write_text(json.dumps(report, indent=1) + "\n")
    print(markdown(report))
    tools = {name: tool for name, tool in report["tools"].items() if "not_run" not in tool}
    shares = {name: [tool["found"].get(kind, 0) / len(photos) for kind in kinds] for name, tool in tools.items()}
    bars(kinds, shares, "share of edits that is found", options.out / "edits.png")


if __name__ == "__main__":
    main()
