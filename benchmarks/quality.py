"""Which copies of your own photos are found, and which different photos are merged, by this project and by other tools.

    python benchmarks/quality.py PHOTOS --out quality-out
    python -m venv peers && peers/bin/pip install fastdup==2.54 imagededup pdqhash      # optional
    python benchmarks/quality.py PHOTOS --negatives LOOKALIKES --peers-python peers/bin/python

Originals are drawn from PHOTOS and changed in every way of `dedup/numerics/planting.py`; the other photos and those of
--negatives are the look-alikes. Every tool reads the same files in one batch per change: all photos and one copy of each
original, so that a copy can't be found by way of another copy. In each batch the pairs that a tool calls copies make
components, and a copy is found if it is in its original's. A false merge is an unordered pair of different photos in one
component of any batch.

Each tool is shown with its default threshold, and with the laxest threshold at which it merges nothing falsely on these
photos. That depends on the one nearest pair of them: if it is one photo after all, name it in --known-pairs; the
nearest pairs of each tool stand in quality.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import quality_ours
from quality_files import Design, make_files
from quality_measures import nearest_photos, summarize, tally_pairs
from quality_peers import PEERS, Peer, Peers, clean_threshold, curve

from dedup.numerics.image.planting import CHANGES, changes

_FAMILIES = {change.name: change.family for change in CHANGES}
_SETTINGS = {"default": "Default settings", "clean": "Threshold chosen for no false merge on these photos"}


def say(text: str) -> None:
    """Report progress, apart from the result."""
    print(text, file=sys.stderr, flush=True)


def our_name(label: str) -> str:
    """The column of one of this project's parts."""
    return "dedup" if label == "default" else f"dedup, {label}"


def measure_ours(design: Design, scratch: Path, only: tuple[str, ...], report: Callable[[str, dict[str, Any]], None]) -> None:
    """Every part of this project whose name begins with one of `only`."""
    parts = [part for part in quality_ours.available_parts() if our_name(part[0]).startswith(only)]
    for label, settings, seconds in quality_ours.measure(design, scratch, parts):
        entry: dict[str, Any] = {"seconds": round(seconds, 1), "files_read": len(design.changes) * (design.n_photos + design.n_originals)}
        for name, (threshold, result) in settings.items():
            is_shown = name == "default" or not len(result.merged)
            entry[name] = {"threshold": threshold, **summarize(result, _FAMILIES, design)} if is_shown else None
        report(our_name(label), entry)


def measure_peer(peer: Peer, peers: Peers, design: Design) -> dict[str, Any]:
    """A peer's figures, or why there are none."""
    try:
        pairs, seconds = peers.pairs(peer)
    except RuntimeError as error:
        return {"not_run": str(error)}
    sign = 1 if peer.default > 0 else -1
    n_batches = len(design.changes) if peer.method == "fastdup" else 1
    clean = clean_threshold(pairs, peer, design)
    entry: dict[str, Any] = {
        "seconds": round(seconds, 1),
        "files_read": n_batches * design.n_photos + len(design.changes) * design.n_originals,
        "clean": None,
        "nearest": [[sign * distance, design.photos[a], design.photos[b]] for distance, a, b in nearest_photos(pairs, design)],
        "curve": [],
    }
    for name, threshold in (("default", peer.default), ("clean", clean)):
        if threshold is not None:
            entry[name] = {"threshold": sign * threshold, **summarize(tally_pairs(pairs, threshold, design), _FAMILIES, design)}
    for threshold, result in curve(pairs, peer, design):
        figures = summarize(result, _FAMILIES, design)
        entry["curve"].append({"threshold": sign * threshold, "all": figures["all"], "merges": figures["merges"]})
    return entry


def _cell(recall: dict[str, float]) -> str:
    return f"{recall['recall']:.2f} ({recall['low']:.2f}–{recall['high']:.2f})"


def table(report: dict[str, Any], setting: str) -> str:
    """One setting of all tools in markdown: a row per family, then merges and seconds."""
    tools = {name: tool for name, tool in report["tools"].items() if "not_run" not in tool}
    shown = {name: tool[setting] for name, tool in tools.items()}
    lines = ["| | " + " | ".join(tools) + " |", "| --- |" + " --- |" * len(tools)]

    def row(name: str, cells: list[str]) -> None:
        lines.append(f"| {name} | " + " | ".join(cells) + " |")

    row("threshold", ["none" if tool is None else f"{tool['threshold']:.4g}" for tool in shown.values()])
    for family in report["families"]:
        row(family.replace("_", " "), ["–" if tool is None else _cell(tool["families"][family]) for tool in shown.values()])
    row("**all changes**", ["–" if tool is None else _cell(tool["all"]) for tool in shown.values()])
    row("false merges", ["–" if tool is None else f"{tool['merges']:,}" for tool in shown.values()])
    row("false merges per pair judged", ["–" if tool is None else f"{tool['false_rate']:.2g}" for tool in shown.values()])
    if setting == "default":
        row("seconds", [f"{tool['seconds']:.0f}" for tool in tools.values()])
        row("files read", [f"{tool['files_read']:,}" for tool in tools.values()])
    return "\n".join(lines)


def markdown(report: dict[str, Any]) -> str:
    """Both tables and the tools that did not run."""
    parts = [
        f"{report['n_originals']} originals, {report['n_photos']} photos, {len(report['changes'])} changes, "
        f"{report['n_copies']:,} copies; share of copies found with 95% interval (Wilson), pooled over a family's strengths."
    ]
    parts += [f"**{title}**\n\n{table(report, setting)}" for setting, title in _SETTINGS.items()]
    missing = [f"- {name}: not run: {tool['not_run']}" for name, tool in report["tools"].items() if "not_run" in tool]
    return "\n\n".join(parts + (["\n".join(missing)] if missing else []))


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="a folder of images, searched with its subfolders")
    parser.add_argument("--negatives", type=Path, help="a folder of further photos, none a copy of one of PHOTOS")
    parser.add_argument("--out", type=Path, default=Path("quality-out"), help="files, quality.json and quality.png go here")
    parser.add_argument("--peers-python", metavar="PATH", help="a python with fastdup, imagededup and pdqhash, or some of them")
    parser.add_argument("--originals", type=int, default=150, metavar="N", help="photos that are copied (150)")
    parser.add_argument("--strengths", choices=("default", "all"), default="all", help="the common strengths of each change, or all (all)")
    parser.add_argument("--families", help="only these families of changes: jpeg,crop,…")
    parser.add_argument("--known-pairs", type=Path, help="CSV of file names a,b that show one photo: no false merges")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="only the columns whose names begin with this, the others from quality.json"
    )
    parser.add_argument("--max-side", type=int, default=1024, help="larger photos are first reduced to this size, in pixels (1024)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Print two markdown tables; write quality.json and quality.png."""
    args = arguments(argv)
    picked = [change.name for change in changes(args.families.split(",") if args.families else None, args.strengths)]
    args.out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    design = make_files(
        args.out,
        args.photos,
        args.negatives,
        picked,
        n_originals=args.originals,
        max_side=args.max_side,
        seed=args.seed,
        known_pairs=args.known_pairs,
    )
    say(
        f"{design.n_photos} photos, {design.n_originals} originals, {len(picked)} changes: files after {time.perf_counter() - started:.0f} s"
    )
    same = [[design.photos[k], design.photos[first]] for k, first in enumerate(design.identity.tolist()) if k != first]
    report: dict[str, Any] = {
        "n_photos": design.n_photos,
        "n_originals": design.n_originals,
        "n_copies": design.n_originals * len(picked),
        "seed": args.seed,
        "families": list(dict.fromkeys(_FAMILIES[name] for name in picked)),
        "changes": picked,
        "same_photo": same,
    }
    only, record = tuple(args.only or [""]), args.out / "quality.json"
    earlier = json.loads(record.read_text()) if args.only and record.exists() else {}
    kept = earlier.pop("tools", {})
    if kept and earlier != report:
        raise SystemExit(
            f"{record} is of other photos or changes: its columns can't stand beside new ones; leave --only out or give another --out"
        )
    report["tools"] = kept

    def add(name: str, entry: dict[str, Any]) -> None:
        report["tools"][name] = entry
        say(f"{name}: " + (f"not run: {entry['not_run']}" if "not_run" in entry else f"{entry['seconds']} s"))
        record.write_text(json.dumps(report, indent=1))

    scratch = args.out / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    measure_ours(design, scratch, only, add)
    peers = Peers(args.peers_python or "", design, scratch)
    for peer in (peer for peer in PEERS if peer.name.startswith(only)):
        add(peer.name, measure_peer(peer, peers, design) if args.peers_python else {"not_run": "no --peers-python given"})
    shutil.rmtree(scratch)
    order = [*(our_name(label) for label, _ in quality_ours.PARTS), *(peer.name for peer in PEERS)]
    report["tools"] = {name: report["tools"][name] for name in sorted(report["tools"], key=order.index)}
    print(markdown(report))
    try:
        from plot_quality import draw
    except ImportError as error:
        say(f"no quality.png: {error}")
    else:
        draw(report, args.out / "quality.png")
    return report


if __name__ == "__main__":
    main()
