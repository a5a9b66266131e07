"""How many unique drawn, written and printed pictures a tool drops, since they share a template: this project and others, on the same files.

    python benchmarks/lookalikes.py --out lookalikes-out
    python -m venv peers && peers/bin/pip install fastdup==2.54 imagededup pdqhash      # optional
    python benchmarks/lookalikes.py --out lookalikes-out --peers-python peers/bin/python

Every picture is drawn once (`lookalike_kinds.py`): a kind has several layouts, a layout several contents. Every second layout is a file
as a program writes it, every other one a photo of the paper or screen, from another side each time. Whatever is dropped is lost. Other
seeds give other layouts and fonts: what is tuned on one must hold on another.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
from lookalike_kinds import KINDS, relief
from machine import describe_machine
from PIL import Image
from quality_peers import PDQ_MIN_QUALITY, pairs_within

from dedup.numerics.graph.components import connected_components

_WORKER = Path(__file__).with_name("peer_worker.py")
PEERS = {"imagededup PHash": ("phash", 10.0), "imagededup DHash": ("dhash", 10.0), "PDQ": ("pdq", 31.0), "fastdup": ("fastdup", 0.9)}


def photographed(picture: Image.Image, rng: Random) -> Image.Image:
    """A photo of a sheet that lies on a table, or of a screen."""
    width, height = picture.size
    scale = 900 / max(width, height)
    table = (int(width * scale * 1.25), int(height * scale * 1.25))
    ground = np.asarray(relief(rng, *table, 4)).astype(np.float32)
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    target = np.array([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]]) + [
        [rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05)] for _ in range(4)
    ]
    matrix = cv2.getPerspectiveTransform(corners, (target * table).astype(np.float32))
    sheet = cv2.warpPerspective(np.asarray(picture), matrix, table, flags=cv2.INTER_AREA)
    mask = cv2.warpPerspective(np.full((height, width), 255, np.uint8), matrix, table)[..., None] / 255.0
    light = (
        np.linspace(rng.uniform(0.7, 1.0), rng.uniform(0.8, 1.1), table[0])[None, :, None]
        * np.linspace(rng.uniform(0.8, 1.0), 1.0, table[1])[:, None, None]
    )
    mixed = (mask * sheet + (1 - mask) * ground) * light
    mixed = cv2.GaussianBlur(mixed.astype(np.float32), (0, 0), rng.uniform(0.4, 0.9))
    mixed += np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(1, 4), mixed.shape)
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


def encoded(picture: Image.Image, rng: Random) -> tuple[str, bytes]:
    """A file as the web has it, with its suffix: PNG, or JPEG of some quality, of some size."""
    share = rng.choice([1.0, 1.0, 0.75, 0.6])
    picture = (
        picture.resize((round(picture.width * share), round(picture.height * share)), Image.Resampling.LANCZOS) if share < 1 else picture
    )
    buffer = io.BytesIO()
    if rng.random() < 0.3:
        picture.save(buffer, "PNG")
        return "png", buffer.getvalue()
    picture.save(buffer, "JPEG", quality=rng.choice([40, 60, 75, 85, 92]))
    return "jpg", buffer.getvalue()


def draw(kind: str, layout: int, n: int, seed: int) -> Iterator[Image.Image]:
    """Different pictures of one layout, at most `n`: what comes out twice is drawn once."""
    seen: set[bytes] = set()
    for attempt in range(3 * n):
        picture = KINDS[kind](Random(f"{seed} {kind} {layout}"), Random(f"{seed} {kind} {layout} {attempt}"))
        digest = hashlib.sha256(picture.tobytes()).digest()
        if digest not in seen and len(seen) < n:
            seen.add(digest)
            yield picture


def write_pictures(folder: Path, kinds: Iterable[str], n_layouts: int, n: int, seed: int) -> dict[str, str]:
    """Write all pictures as ``KIND-LAYOUT-NUMBER``; returns the kind of each by its file's name, photographed ones apart."""
    folder.mkdir(parents=True)
    made = {}
    for kind in kinds:
        for layout in range(n_layouts):
            for number, picture in enumerate(draw(kind, layout, n, seed)):
                rng = Random(f"{seed} {kind} {layout} {number} file")
                suffix, data = encoded(photographed(picture, rng) if layout % 2 else picture, rng)
                name = f"{kind}-{layout}-{number:03d}.{suffix}"
                (folder / name).write_bytes(data)
                made[name] = f"{kind}, photographed" if layout % 2 else kind
    return made


def ours(folder: Path, scratch: Path, settings: list[str]) -> tuple[list[str], float]:
    """The files that a run drops, and its seconds."""
    started = time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "dedup",
        "run",
        f"input.images={folder}",
        f"output.run_dir={scratch / 'run'}",
        "report.enabled=false",
        *settings,
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    return pq.read_table(str(scratch / "run" / "duplicates"), columns=["key"])["key"].to_pylist(), seconds


def their_pairs(python: str, method: str, threshold: float, folder: Path, scratch: Path) -> tuple[list[str], list[tuple[int, int]], float]:
    """Files that another tool has read, the pairs of them that it calls copies at its own threshold, by their places, and its seconds.

    Raises RuntimeError if it is not there, or fails.
    """
    target, source, names = scratch / f"{method}.json", str(folder.resolve()), sorted(path.name for path in folder.iterdir())
    if method == "fastdup":
        listed = scratch / "files.json"
        listed.write_text(json.dumps({"all": [str((folder / name).resolve()) for name in names]}))
        source = str(listed)
    started = time.perf_counter()
    try:
        done = subprocess.run([python, str(_WORKER), method, source, str(target)], capture_output=True, text=True, check=False)
    except OSError as error:
        raise RuntimeError(str(error)) from error
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1])
    answer, seconds = json.loads(target.read_text()), time.perf_counter() - started
    if method == "fastdup":
        return names, [(int(a), int(b)) for a, b, similarity in answer["all"] if similarity >= threshold], seconds
    if method == "pdq":
        answer = {name: hashes[0] for name, (quality, hashes) in answer.items() if quality >= PDQ_MIN_QUALITY}
    hashes = {name: np.frombuffer(bytes.fromhex(digits), np.uint64) for name, digits in answer.items() if digits}
    words = np.array(list(hashes.values()))
    near = pairs_within(words[None], words, threshold, is_same=True)
    return list(hashes), list(zip(near.src.tolist(), near.dst.tolist(), strict=True)), seconds


def groups_of(n: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """The component of each of n files: the place of its first member."""
    src, dst = np.array(pairs, np.int64).reshape(-1, 2).T
    return [int(group) for group in connected_components(src, dst, n)]


def markdown(report: dict[str, Any]) -> str:
    """A row for each kind, a column for each tool: pictures dropped."""
    tools = {name: tool for name, tool in report["tools"].items() if "not_run" not in tool}
    lines = ["| kind | pictures | " + " | ".join(f"dropped by {name}" for name in tools) + " |", "| --- |" + " --- |" * (1 + len(tools))]
    for kind, n in sorted(report["pictures"].items()):
        lines.append(
            f"| {kind.replace('_', ' ')} | {n} | " + " | ".join(str(tool["dropped"].get(kind, 0)) for tool in tools.values()) + " |"
        )
    total = sum(report["pictures"].values())
    shares = [f"**{sum(tool['dropped'].values()):,} ({sum(tool['dropped'].values()) / total:.1%})**" for tool in tools.values()]
    lines.append(f"| **all** | {total:,} | " + " | ".join(shares) + " |")
    lines.append("| seconds | | " + " | ".join(f"{tool['seconds']:.0f}" for tool in tools.values()) + " |")
    missing = [f"\n- {name}: not run: {tool['not_run']}" for name, tool in report["tools"].items() if "not_run" in tool]
    return "\n".join([*lines, *missing])


def bars(rows: Sequence[str], shares: Mapping[str, Sequence[float]], label: str, path: Path) -> None:
    """Draw a bar for each row and tool.

    `shares`: tool to the length of its bar in each row.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 2 + 0.18 * len(rows) * max(1, len(shares)) ** 0.5), layout="constrained")
    for place, (name, lengths) in enumerate(shares.items()):
        axes.barh([row + 0.8 * place / len(shares) for row in range(len(rows))], lengths, 0.8 / len(shares), label=name)
    axes.set_yticks([row + 0.3 for row in range(len(rows))], [row.replace("_", " ") for row in rows], fontsize=7)
    axes.set_xlabel(label)
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Draw the pictures, let every tool drop what it takes for copies, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("lookalikes-out"), help="pictures, run, lookalikes.json and lookalikes.png go here"
    )
    parser.add_argument("--layouts", type=int, default=4, help="layouts of each kind (4); every second one is photographed")
    parser.add_argument("--n", type=int, default=12, help="pictures of each layout (12)")
    parser.add_argument("--kinds", help="only these: invoice,chess,…")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peers-python", metavar="PATH", help="a python with fastdup, imagededup and pdqhash, or some of them")
    parser.add_argument("settings", nargs="*", help="of the run: key=value")
    options = parser.parse_intermixed_args()
    kinds = options.kinds.split(",") if options.kinds else list(KINDS)
    scratch = options.out / "scratch"
    for folder in (scratch, options.out / "pictures"):
        shutil.rmtree(folder, ignore_errors=True)
    scratch.mkdir(parents=True)
    made = write_pictures(options.out / "pictures", kinds, options.layouts, options.n, options.seed)
    report: dict[str, Any] = {
        "machine": describe_machine(), "seed": options.seed, "settings": options.settings, "pictures": dict(Counter(made.values())), "tools": {}
    }  # fmt: skip

    def add(name: str, dropped: list[str], seconds: float) -> None:
        report["tools"][name] = {
            "dropped": dict(Counter(made[file] for file in dropped)),
            "seconds": round(seconds, 1),
            "files": sorted(dropped),
        }
        print(f"{name}: {seconds:.0f} s", file=sys.stderr)

    add("dedup", *ours(options.out / "pictures", scratch, options.settings))
    for name, (method, threshold) in PEERS.items():
        try:
            if not options.peers_python:
                raise RuntimeError("no --peers-python given")
            names, pairs, seconds = their_pairs(options.peers_python, method, threshold, options.out / "pictures", scratch)
            groups = groups_of(len(names), pairs)
            add(name, [file for place, file in enumerate(names) if groups[place] != place], seconds)
        except RuntimeError as error:
            report["tools"][name] = {"not_run": str(error)}
    (options.out / "lookalikes.json").write_text(json.dumps(report, indent=1) + "\n")
    print(markdown(report))
    pictures = sorted(report["pictures"].items())
    shares = {
        name: [tool["dropped"].get(kind, 0) / n for kind, n in pictures] for name, tool in report["tools"].items() if "not_run" not in tool
    }
    bars([kind for kind, _ in pictures], shares, "share of unique pictures that is dropped", options.out / "lookalikes.png")


if __name__ == "__main__":
    main()
