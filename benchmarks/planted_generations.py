"""Scoring planted generations: plain copies, templates and unrelated pictures on equal grounds, told apart or not.

    python benchmarks/planted_generations.py --targets 200 --side 256 --json planted_generations.json

Each target has a training image and 20 generations. Of a plain target 12 are copies of it; of a template 12 have its picture on 40 to 90% of
the area, the rest another picture each; of an unrelated target all show another thing on the same ground. Copies are blurred, noisy
or JPEGs. Prints how many are labelled right and, on request, writes JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from machine import describe_machine
from PIL import Image, ImageFilter

from dedup.attack.score import score_generations
from dedup.demo.pictures import photo_scenes, procedural_scene

Pixels = npt.NDArray[np.uint8]
KINDS = ("plain", "template", "unrelated")
LABEL_OF = {"plain": "verbatim", "template": "template", "unrelated": "none"}
N_COPIES, N_GENERATIONS = 12, 20


class Planter:
    """Makes targets of a kind at a size; everything drawn from one seed."""

    def __init__(self, side: int, seed: int, n_pictures: int = 80) -> None:
        self.side, self.rng = side, np.random.default_rng(seed)
        photos = [np.asarray(Image.fromarray(photo.pixels).resize((side, side))) for photo in photo_scenes()]
        drawn = [procedural_scene(np.random.default_rng([seed, number]), (side, side)) for number in range(n_pictures)]
        self.pictures = [*photos, *drawn]

    def target(self, kind: str) -> tuple[Pixels, list[Pixels]]:
        """A training image and its generations, those that have something of it first."""
        if kind == "unrelated":
            ground = self._ground()
            return self._on(ground), [self._changed(self._on(ground)) for _ in range(N_GENERATIONS)]
        base, own = self._picture(), int(self.rng.integers(len(self.pictures)))
        others = [self._picture() for _ in range(N_GENERATIONS - N_COPIES)]
        if kind == "plain":
            return self.pictures[own], [self._changed(self.pictures[own]) for _ in range(N_COPIES)] + others
        differs = self._region(float(self.rng.uniform(0.4, 0.9)))
        # other content each: a generation with the training image's own would be a plain copy
        fillings = self.rng.choice(len(self.pictures), N_COPIES + 1, replace=False).tolist()
        made = [np.where(differs[..., None], self.pictures[number], base) for number in fillings]
        return made[0], [self._changed(pixels) for pixels in made[1:]] + others

    def _picture(self) -> Pixels:
        pixels = self.pictures[int(self.rng.integers(len(self.pictures)))]
        return pixels[:, ::-1] if self.rng.random() < 0.5 else np.rot90(pixels) if self.rng.random() < 0.5 else pixels

    def _changed(self, pixels: Pixels) -> Pixels:
        image, choice = Image.fromarray(np.ascontiguousarray(pixels)), int(self.rng.integers(4))
        if choice == 0:
            return np.asarray(image.filter(ImageFilter.GaussianBlur(float(self.rng.uniform(0.3, 1.2)) * self.side / 256)))
        if choice == 1:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=int(self.rng.integers(30, 90)))
            return np.asarray(Image.open(buffer))
        if choice == 2:
            return np.clip(np.rint(pixels + self.rng.normal(0, self.rng.uniform(2, 12), pixels.shape)), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(pixels)

    def _region(self, area: float) -> npt.NDArray[np.bool_]:
        """Where the pictures of a template differ: a rectangle, a side, a strip below, a disc."""
        side, free, kind = self.side, 1.0 - area, int(self.rng.integers(4))
        differs = np.zeros((side, side), dtype=bool)
        if kind == 0:
            length = round(side * free**0.5)
            top, left = self.rng.integers(0, side - length + 1, 2)
            differs[top : top + length, left : left + length] = True
        elif kind == 1:
            differs[:, : round(side * free)] = True
        elif kind == 2:
            differs[side - round(side * free) :] = True
        else:
            y, x = np.mgrid[:side, :side] - self.rng.uniform(0.4, 0.6, (2, 1, 1)) * side
            distance = x**2 + y**2
            differs = distance < np.sort(distance.ravel())[round(free * side**2)]
        return differs

    def _ground(self) -> npt.NDArray[np.float64]:
        """White, one colour, a gradient, a vignette, a table before a wall."""
        y, x = np.mgrid[: self.side, : self.side] / self.side
        kind, grey = int(self.rng.integers(5)), np.ones(3)
        if kind == 2:
            return np.asarray((180 + 60 * y)[..., None] * grey)
        if kind == 3:
            return np.asarray((235 - 120 * ((y - 0.5) ** 2 + (x - 0.5) ** 2))[..., None] * grey)
        if kind == 4:
            return np.where((y > 0.6)[..., None], self.rng.uniform(60, 200, 3), self.rng.uniform(200, 250, 3))
        return np.full((self.side, self.side, 3), 255.0 if kind == 0 else self.rng.integers(0, 256, 3))

    def _on(self, ground: npt.NDArray[np.float64]) -> Pixels:
        pixels = ground.copy()
        height, width = (int(length) for length in self.rng.integers(self.side // 7, self.side // 2, 2))
        top, left = int(self.rng.integers(0, self.side - height)), int(self.rng.integers(0, self.side - width))
        thing = Image.fromarray(np.ascontiguousarray(self._picture())).resize((width, height))
        pixels[top : top + height, left : left + width] = np.asarray(thing)
        return np.clip(pixels, 0, 255).astype(np.uint8)


def write_planted(folder: Path, n_targets: int, side: int, seed: int) -> list[str]:
    """Write `targets.parquet`, `train/` and `generations/TARGET_ID/`: so many targets of each kind, in turn; returns their kinds."""
    planter, rows, kinds = Planter(side, seed), [], []
    (folder / "train").mkdir(parents=True)
    for number in range(n_targets * len(KINDS)):
        kind, target_id = KINDS[number % len(KINDS)], f"{number:016x}"
        training, generations = planter.target(kind)
        path = folder / "train" / f"{number:05d}.png"
        Image.fromarray(np.ascontiguousarray(training)).save(path)
        (folder / "generations" / target_id).mkdir(parents=True)
        for place, pixels in enumerate(generations):
            Image.fromarray(np.ascontiguousarray(pixels)).save(folder / "generations" / target_id / f"{place:03d}.png")
        n_bytes = path.stat().st_size
        where = {"shard": f"{folder}/train/", "key": path.name, "byte_offset": 0, "n_bytes": n_bytes}
        rows.append(
            {"target_id": target_id, "component_id": number, "duplication_count": 2 + number % 7, "caption": f"{kind} {number}"} | where
        )
        kinds.append(kind)
    pq.write_table(pa.Table.from_pylist(rows), folder / "targets.parquet")
    return kinds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, default=200, help="of each kind")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        kinds = write_planted(folder, options.targets, options.side, options.seed)
        started = time.perf_counter()
        score_generations(f"{folder}/targets.parquet", f"{folder}/generations", f"{folder}/scores")
        seconds = time.perf_counter() - started
        rows = pq.read_table(sorted((folder / "scores").glob("part-*.parquet"))).to_pylist()
    labels = {kind: Counter(row["label"] for row, own in zip(rows, kinds, strict=True) if own == kind) for kind in KINDS}
    print("| planted | label right | labels |\n| --- | --- | --- |")
    for kind, counts in labels.items():
        print(f"| {kind} | {counts[LABEL_OF[kind]]:,} of {sum(counts.values()):,} | {dict(counts)} |")
    sizes = [row["clique_size_masked"] for row in rows if row["label"] == "template"]
    report = {"labels": labels, "mean_clique_of_templates": float(np.mean(sizes or [0])), "seconds": seconds, "machine": describe_machine()}
    print(json.dumps({name: report[name] for name in ("mean_clique_of_templates", "seconds", "machine")}))
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
