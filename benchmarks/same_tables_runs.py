"""Runs of `same_tables.py`: what is run in each tree, and where the results are."""

from __future__ import annotations

import importlib.util
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from same_tables_files import CARRIED, write_generations

SETTINGS = ("engine.workers=2", "report.enabled=false")  # of every run
LAX = "search.min_similarity=0.35"  # so low that pixels refuse pairs, and groups without pixels are cut
LISTS = ("search.exhaustive_below=0", "search.nlist=4", "search.nprobe=2")
DONE = "_finished"
TARGETS = 4  # for which generations are made


class CommandFailed(Exception):
    """A command of a tree ended with an error."""


@dataclass(frozen=True)
class Tree:
    """A checkout whose commands are run, and how its settings differ from those written here."""

    path: Path
    keys: dict[str, str] = field(default_factory=dict)  # name of a key in this script: its name in the tree
    settings: tuple[str, ...] = ()  # further ones: [RUN:]KEY=VALUE

    def environment(self) -> dict[str, str]:
        """The environment of this process, with the tree's `dedup` before an installed one."""
        return os.environ | {"PYTHONPATH": str(self.path), "PYTHONDONTWRITEBYTECODE": "1"}

    def python(self, arguments: Sequence[str], folder: Path) -> str:
        """Standard output of Python in the tree's environment."""
        command = [sys.executable, *arguments]
        ended = subprocess.run(command, cwd=folder, env=self.environment(), capture_output=True, text=True, check=False)
        if ended.returncode:
            last = "\n    ".join(ended.stderr.strip().splitlines()[-5:])
            raise CommandFailed(f"{self.path}: `{' '.join(arguments)}` ended with {ended.returncode}:\n    {last}")
        return ended.stdout

    def check(self, folder: Path) -> None:
        """Raise unless the tree's own package is imported."""
        where = Path(self.python(["-c", "import dedup; print(dedup.__file__)"], folder).strip())
        if not where.is_relative_to(self.path):
            raise SystemExit(f"{self.path}: Python imports {where} instead; expected a checkout with a folder `dedup`")

    def renamed(self, setting: str) -> str:
        """KEY=VALUE with the key's name in this tree."""
        key, _, value = setting.partition("=")
        return f"{self.keys.get(key, key)}={value}"


@dataclass(frozen=True)
class Place:
    """Where one run of one tree writes: the same for both trees, so that paths in their tables are equal."""

    tree: Tree
    inputs: Path
    runs: Path
    name: str

    @property
    def folder(self) -> Path:
        """That of this run's directories and outputs."""
        return self.runs / self.name

    def dedup(self, *arguments: str | Path, output: str = "") -> str:
        """Run a command; with `output` its standard output is kept under that name, to be compared."""
        text = self.tree.python(["-m", "dedup", *map(str, arguments)], self.folder)
        if output:
            (self.folder / output).write_text(text)
        return text

    def run(self, *settings: str, at: str = "run") -> None:
        """`dedup run`, with the tree's names of the keys."""
        further = [setting for run, setting in map(split_setting, self.tree.settings) if run in ("", self.name)]
        given = [*(self.tree.renamed(setting) for setting in (*SETTINGS, *settings)), *further]
        self.dedup("run", *given, f"output.run_dir={self.folder / at}", "--json", output=f"{at}.json")

    @property
    def shards(self) -> str:
        """Setting: all demo shards."""
        return f"input.shards={self.inputs}/shards/*.tar"


def run_demo(place: Place) -> None:
    """Demo shards with default settings."""
    place.run(place.shards)


def run_carried(place: Place) -> None:
    """Several lists, views in lists too, sidecars with further columns, and keepers chosen by one of these."""
    carry = [f"input.shards={place.inputs}/sidecar/*.tar", "input.sidecar=true", f"input.carry={','.join(CARRIED)}"]
    place.run(*carry, "keep.order_by=similarity desc,sample_id", LAX, *LISTS)


def run_folder(place: Place) -> None:
    """A folder of images with a file of captions."""
    place.run(f"input.images={place.inputs}/images", f"input.captions={place.inputs}/captions.csv")


def run_precomputed(place: Place) -> None:
    """The demo's embeddings, as a user's precomputed ones."""
    place.run("encoder.name=precomputed", f"input.embeddings={place.runs}/demo/run/embeddings")


def run_incremental(place: Place) -> None:
    """Half of the shards, those that hold refused pairs among them; then all on top of these."""
    shards = sorted((place.inputs / "shards").glob("*.tar"))
    first = [f"input.shards={path}" for path in shards[len(shards) // 2 :]]
    place.run(*first, LAX, at="base")
    place.run(place.shards, LAX, f"base.run_dir={place.folder}/base")


def run_similarity(place: Place) -> None:
    """No pixels; lists, with each image compared in some of them."""
    place.run(place.shards, "confirm.enabled=false", LAX, *LISTS)


def run_codes(place: Place) -> None:
    """Pairs from the codes of the index."""
    place.run(place.shards, "search.method=ivfpq", *LISTS)


def run_exclusion(place: Place) -> None:
    """A list of samples to remove, and pictures that none may be near."""
    place.run(place.shards, f"exclude.list={place.inputs}/exclude.txt", f"exclude.reference_images={place.inputs}/reference")


def run_spark(place: Place) -> None:
    """The demo on Spark."""
    place.run(place.shards, "engine.name=spark", "engine.master=local[2]")


def run_torch(place: Place) -> None:
    """A model's vectors, and the descriptor's as a second source of candidates."""
    model = ["encoder.name=torchscript", f"encoder.pretrained={place.inputs}/tiny.torchscript.pt", "encoder.image_size=64"]
    # to random weights all pictures look alike
    place.run(place.shards, *model, "search.min_similarity=0.9999", "embed.also=dct")


def run_commands(place: Place) -> None:
    """Commands on the finished demo."""
    run, queries = place.runs / "demo" / "run", place.inputs / "queries"
    place.dedup("query", run, queries, "--k", "5", "--json", output="query.jsonl")
    place.dedup("flag", run, queries, "--out", place.folder / "flags.parquet", "--json", output="flag.json")
    for table in ("duplicates", "manifest", "embeddings/rejected"):
        key = rows_of(run, table)[0]["key"]
        place.dedup("explain", run, key, "--json", output=f"explain-{table.rpartition('/')[2]}.json")
    place.dedup("rewrite", run, place.folder / "cleaned", "--json", output="rewrite.json")
    place.dedup("export", run, "--format", "keys", "--out", place.folder / "keys.txt", "--json", output="export.json")
    write_generations(place.folder / "generations", rows_of(run, "targets")[:TARGETS])
    place.dedup(
        "extraction",
        "score",
        run / "targets",
        place.folder / "generations",
        "--out",
        place.folder / "scores",
        "--json",
        output="score.json",
    )


def run_calibrate(place: Place) -> None:
    """A threshold for the demo's images, from as few of them as allowed."""
    run = place.runs / "demo" / "run"
    place.dedup("calibrate", run, "--n-images", "20", "--out", place.folder / "calibration", "--json", output="calibrate.json")


def cpu_seconds() -> float:
    """Of the commands so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def split_setting(text: str) -> tuple[str, str]:
    """Run and KEY=VALUE of [RUN:]KEY=VALUE."""
    head, _, value = text.partition("=")
    run, _, key = head.rpartition(":")
    return run, f"{key}={value}"


def rows_of(run: Path, table: str) -> list[dict[str, Any]]:
    """All rows of a table of a run."""
    return [row for path in sorted((run / table).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


RUNS: dict[str, Callable[[Place], None]] = {
    "demo": run_demo,
    "carried": run_carried,
    "folder": run_folder,
    "precomputed": run_precomputed,
    "incremental": run_incremental,
    "similarity": run_similarity,
    "codes": run_codes,
    "exclusion": run_exclusion,
    "torch": run_torch,
    "commands": run_commands,
    "calibrate": run_calibrate,
    "spark": run_spark,
}
ON_DEMO = {"precomputed", "commands", "calibrate"}


def possible(names: Sequence[str]) -> list[str]:
    """The runs for which this environment has the libraries, in order."""
    missing = {name for name, library in (("torch", "torch"), ("spark", "pyspark")) if not importlib.util.find_spec(library)}
    for name in sorted(missing.intersection(names)):
        print(f"{name}: left out, its libraries are not installed", flush=True)
    return [name for name in RUNS if name in names and name not in missing]


def make_results(tree: Tree, names: Sequence[str], inputs: Path, runs: Path, kept: Path) -> list[str]:
    """Make the runs that do not exist yet at `runs`, then move all to `kept`; returns the failures, a text each.

    Both trees write to the same folder, one after the other, since tables hold paths.
    """
    shutil.rmtree(runs, ignore_errors=True)
    if kept.exists():
        kept.rename(runs)
    runs.mkdir(exist_ok=True)
    tree.check(runs)
    failures = []
    try:
        for name in RUNS:
            is_wanted = name in names or (name == "demo" and not ON_DEMO.isdisjoint(names))
            if is_wanted and not (runs / name / DONE).exists():
                failures += make_run(Place(tree, inputs, runs, name))
    finally:
        runs.rename(kept)
    return failures


def make_run(place: Place) -> list[str]:
    """Make one run; returns why it failed, if it did."""
    shutil.rmtree(place.folder, ignore_errors=True)
    place.folder.mkdir()
    started, used = time.perf_counter(), cpu_seconds()
    try:
        RUNS[place.name](place)
    except (CommandFailed, OSError, LookupError) as error:
        return [f"{place.name}: {error}"]
    (place.folder / DONE).touch()
    print(f"{place.tree.path}: {place.name} in {time.perf_counter() - started:.0f} s, {cpu_seconds() - used:.0f} s of a core", flush=True)
    return []
