"""Whether two trees of this project compute the same: runs and commands on the same inputs, results compared to the last bit.

    git worktree add ../before main
    python benchmarks/same_tables.py ../before . --work /tmp/same
    python benchmarks/same_tables.py ../before . --work /tmp/same --only demo similarity
    python benchmarks/same_tables.py ../before . --key-new search.method=index.method --renamed looks=views @more

Demo shards are made by OLD, all other inputs by this script; both trees run in the same place, so that their tables hold equal paths.
Parquet files are compared column by column in stored order with their schemas, arrays and index files bit by bit, JSON by value without
times, versions and digests. Differences between configurations of stages are only noted. Exits with 1 if anything differs.

With --work, results are kept there, and those of OLD are made again only if its sources or settings have changed. Options declare names that
changed on purpose; @FILE holds options, one a line: --key-new is what NEW calls a key that `same_tables_runs.py` sets; --renamed,
--renamed-field and --renamed-value are what OLD's files, columns and values are called in NEW.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import same_tables_files
from same_tables_compare import Comparison, Names
from same_tables_runs import RUNS, CommandFailed, Tree, make_results, possible


def pairs(given: Iterable[str]) -> dict[str, str]:
    """OLD=NEW, ... as a table."""
    return {old: new for old, _, new in (text.partition("=") for text in given)}


def names_of(args: argparse.Namespace) -> Names:
    """What the options say about names that changed."""
    values = {tuple(old.split(":", 1)): new for old, new in pairs(args.renamed_value).items()}
    return Names(pairs(args.renamed), pairs(args.renamed_field), values, tuple(args.ignore))  # type: ignore[arg-type]


def digest_of(paths: Iterable[Path], *further: str) -> str:
    """Digest of the contents of files, and of texts."""
    digest = hashlib.sha256("\n".join(further).encode())
    for path in sorted(paths):
        digest.update(str(path.name).encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def inputs_of(old: Tree, work: Path, n_images: int) -> Path:
    """Inputs with that many images; made if they do not exist."""
    folder = work / f"inputs-{n_images}-{digest_of([Path(same_tables_files.__file__)])}"
    if not folder.exists():
        made = work / "inputs-unfinished"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        old.check(work)
        shards = ["--n-images", str(n_images), "--per-shard", str(max(1, n_images // 4)), "--seed", "7", "--workers", "2"]
        old.python(["-m", "dedup", "demo-data", str(made / "shards"), *shards], work)
        same_tables_files.write_inputs(sorted((made / "shards").glob("*.tar")), made)
        made.rename(folder)
    return folder


def compare(args: argparse.Namespace, work: Path) -> int:
    """Run the chosen runs in both trees and print what differs; returns the exit code."""
    old = Tree(args.old.resolve(), pairs(args.key_old), tuple(args.set_old))
    new = Tree(args.new.resolve(), pairs(args.key_new), tuple(args.set_new))
    inputs, runs = inputs_of(old, work, args.n_images), work / "runs"
    names = possible([name for name in args.only or RUNS if name not in args.without])
    told = (sys.executable, inputs.name, *args.key_old, *args.set_old)
    kept = work / f"old-{digest_of([*(old.path / 'dedup').rglob('*.py'), *Path(__file__).parent.glob('same_tables_runs.py')], *told)}"
    if failures := make_results(old, names, inputs, runs, kept):
        raise SystemExit("OLD does not run:\n" + "\n".join(failures))
    shutil.rmtree(work / "new", ignore_errors=True)
    differences = make_results(new, names, inputs, runs, work / "new")
    notes: set[str] = set()
    for name in names:
        found = Comparison(name, names_of(args))
        found.folders(kept / name, work / "new" / name)
        print(*found.lines(), sep="\n", flush=True)
        differences += found.differences
        notes |= set(found.notes)
    for note in sorted(notes):
        print(f"note: configuration {note}")
    for difference in differences:
        print(f"DIFFERENT: {difference}")
    print(f"{len(differences)} differences" if differences else "the same")
    return 1 if differences else 0


def arguments() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, fromfile_prefix_chars="@")
    parser.add_argument("old", type=Path, help="a checkout whose results are taken as right")
    parser.add_argument("new", type=Path, help="a checkout")
    parser.add_argument("--n-images", type=int, default=240)
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=[])
    parser.add_argument("--without", nargs="+", choices=list(RUNS), default=[])
    parser.add_argument("--work", type=Path, help="folder for inputs and results, kept; by default a temporary one")
    several = {"action": "append", "default": []}
    parser.add_argument("--key-old", metavar="KEY=NAME", help="what OLD calls a key of this script", **several)
    parser.add_argument("--key-new", metavar="KEY=NAME", help="what NEW calls a key of this script", **several)
    parser.add_argument("--set-old", metavar="[RUN:]KEY=VALUE", help="a further setting of OLD's runs", **several)
    parser.add_argument("--set-new", metavar="[RUN:]KEY=VALUE", help="a further setting of NEW's runs", **several)
    parser.add_argument("--renamed", metavar="OLD=NEW", help="word or words of a path under a run directory", **several)
    parser.add_argument("--renamed-field", metavar="OLD=NEW", help="a column, or a field of JSON", **several)
    parser.add_argument("--renamed-value", metavar="FIELD:OLD=NEW", help="a value of a column or of a field of JSON", **several)
    parser.add_argument("--ignore", metavar="GLOB", help="files that don't count, by their path under the run's folder", **several)
    return parser.parse_args()


def main() -> int:
    """Compare in the folder of --work, or in a temporary one."""
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the finished results of OLD are kept even then
    try:
        if args.work:
            args.work.mkdir(parents=True, exist_ok=True)
            with (args.work / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # both trees write to one place, so other comparisons wait
                return compare(args, args.work.resolve())
        with tempfile.TemporaryDirectory(prefix="dedup-same-") as folder:
            return compare(args, Path(folder).resolve())
    except CommandFailed as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
