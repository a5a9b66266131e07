"""Embedding rate per core, and a whole run against fastdup and imagededup on the same files.

    dedup demo-data corpus --n-images 10000 --jpeg-size 110KB
    python -m venv peers && peers/bin/pip install fastdup==2.54 imagededup      # optional
    python benchmarks/embed.py corpus --peers peers/bin/python

Each tool does its whole job: ours from tars to manifest, fastdup's run (features and nearest neighbours) and
imagededup's PHash (encode_images and find_duplicates) from a folder of the same images. Each is a process of its
own, timed from start to end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from machine import describe_machine

PEERS = {
    "fastdup": "import fastdup, sys; fastdup.create(input_dir=sys.argv[1], work_dir=sys.argv[2]).run(overwrite=True, print_summary=False)",
    "imagededup PHash": (
        "import sys; from imagededup.methods import PHash\n"
        "if __name__ == '__main__':\n"
        "    p = PHash(verbose=False); e = p.encode_images(image_dir=sys.argv[1], num_enc_workers=%d)\n"
        "    d = p.find_duplicates(encoding_map=e, max_distance_threshold=10, num_dist_workers=%d); print(len(d))"
    ),
}


def unpack(shards: list[Path], folder: Path) -> int:
    """Write every image of the shards as a file; returns their number."""
    n = 0
    for shard in shards:
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith((".jpg", ".png", ".webp")):
                    (folder / member.name).write_bytes(tar.extractfile(member).read())  # type: ignore[union-attr]
                    n += 1
    return n


def timed(command: list[str]) -> tuple[float, str]:
    """Wall seconds of a process and its output; NaN if it failed."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    return (seconds if done.returncode == 0 else float("nan")), done.stdout + done.stderr


def ours(corpus: Path, scratch: Path, workers: int, until: str = "targets") -> dict[str, float]:
    """Seconds of a whole run, and of its embed stage."""
    out = scratch / f"ours-{until}-{workers}"
    command = [
        sys.executable,
        "-m",
        "dedup",
        "run",
        "--until",
        until,
        f"input.shards={corpus}/*.tar",
        f"output.run_dir={out}",
        "--workers",
        str(workers),
    ]
    seconds, text = timed(command)
    if seconds != seconds:
        raise SystemExit(text)
    record = json.loads((out / "_stages" / "embed.json").read_text())
    images = record["rows"]["metadata"]
    return {
        "seconds": round(seconds, 2),
        "embed_seconds": record["seconds"],
        "images": images,
        "images_per_s": round(images / record["seconds"], 1),
    }


def main() -> None:
    """Print a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--peers", help="a python with fastdup and imagededup")
    parser.add_argument("--scratch", default=None)
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    shards = sorted(args.corpus.glob("*.tar"))
    figures: dict[str, object] = {"machine": describe_machine(), "bytes": sum(path.stat().st_size for path in shards)}
    with tempfile.TemporaryDirectory(dir=args.scratch) as name:
        scratch = Path(name)
        figures["one_core"] = ours(args.corpus, scratch, 1, "embed")
        figures["whole_run"] = whole = ours(args.corpus, scratch, cores)
        if args.peers is None:
            print("no --peers given: fastdup and imagededup are not measured", file=sys.stderr)
        else:
            folder = scratch / "images"
            folder.mkdir()
            figures["n_files"] = unpack(shards, folder)
            for peer, code in PEERS.items():
                script = scratch / "peer.py"
                script.write_text(code % (cores, cores) if "%d" in code else code)
                seconds, text = timed([args.peers, str(script), str(folder), str(scratch / "work")])
                if seconds != seconds:
                    print(f"{peer} failed and is not measured: {text[-300:]}", file=sys.stderr)
                    continue
                figures[peer] = {"seconds": round(seconds, 2), "times_ours": round(seconds / whole["seconds"], 2)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
