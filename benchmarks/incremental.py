"""Adding to a run compared with running over everything: seconds of each stage.

python benchmarks/incremental.py --n 1000000 --dim 384 --new 0.1
python benchmarks/incremental.py --n 200000 --pictures
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import tarfile
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
from machine import describe_machine, processor_seconds
from vectors import near_copies, power_law_rows

from dedup.config.load import load_config
from dedup.pipeline import run as pipeline

FILES = 20  # of all vectors; some of them are the new ones


def write_files(folder: Path, n: int, dim: int, *, share: float, equal: float) -> list[Path]:
    """Files of vectors in clip-retrieval's layout, a folder each; a share are near copies of earlier vectors, some equal."""
    folders, size, pool = [], n // FILES, np.zeros((0, dim), np.float32)
    for number in range(FILES):
        rng = np.random.default_rng([0, number])
        rows = power_law_rows(rng, size, dim)
        pool = np.concatenate([pool, rows[: size // 10]])
        n_near, n_equal = int(share * size), int(equal * size)
        chosen = pool[rng.integers(0, len(pool), n_near + n_equal)]
        rows[-n_near:] = near_copies(rng, chosen[:n_near], rng.uniform(0.955, 0.999, n_near).astype(np.float32))
        rows[-n_near - n_equal : -n_near] = chosen[n_near:]
        at = folder / f"{number:02d}"
        (at / "img_emb").mkdir(parents=True)
        (at / "metadata").mkdir()
        np.save(at / "img_emb" / "img_emb_0.npy", rows.astype(np.float16))
        keys = pa.array([f"{number:02d}{place:08d}" for place in range(size)])
        pq.write_table(pa.table({"key": keys, "caption": keys}), at / "metadata" / "metadata_0.parquet")
        folders.append(at)
    return folders


def write_tar(task: tuple[Path, int, int, float, float]) -> Path:
    """One tar of small JPEGs; a share are near copies of pictures of earlier tars, by their seeds, some byte-identical."""
    path, number, size, share, equal = task
    rng = np.random.default_rng([1, number])
    n_near, n_equal = int(share * size), int(equal * size)
    with tarfile.open(path, "w") as tar:
        for place in range(size):
            seed = number * size + place
            is_near, is_equal = place < n_near, n_near <= place < n_near + n_equal
            if is_near or is_equal:
                seed = int(rng.integers(0, max(1, seed)))
            data = simplejpeg.encode_jpeg(picture(seed), quality=40 if is_near else 85)
            key = f"{number:03d}{place:07d}"
            for suffix, content in (("jpg", data), ("txt", f"picture {seed}".encode())):
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def picture(seed: int) -> np.ndarray:
    """128 pixels of smooth colour and a few rectangles, unlike those of any other seed."""
    rng = np.random.default_rng([2, seed])
    pixels = cv2.resize(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8), (128, 128), interpolation=cv2.INTER_CUBIC)
    for left, top, width, height in rng.integers(8, 64, (8, 4)).tolist():
        pixels[top : top + height, left : left + width] = pixels[top : top + height, left : left + width] // 2 + rng.integers(
            0, 128, 3
        ).astype(np.uint8)
    return pixels


def run(folders: list[Path], scratch: Path, name: str, base: str, settings: list[str]) -> dict[str, object]:
    """One run; its figures."""
    listed = scratch / f"{name}-input"
    if folders[0].suffix == ".tar":
        listed.mkdir()
        for tar in folders:
            (listed / tar.name).symlink_to(tar)
        given = [f"input.shards={listed}/*.tar"]
    for folder in folders if folders[0].suffix != ".tar" else []:
        for kind, suffix in (("img_emb", "npy"), ("metadata", "parquet")):
            (listed / kind).mkdir(parents=True, exist_ok=True)
            (listed / kind / f"{kind}_{folder.name}.{suffix}").symlink_to(folder / kind / f"{kind}_0.{suffix}")
        given = ["encoder.name=precomputed", f"input.embeddings={listed}"]
    given += [f"output.run_dir={scratch / name}", f"base.run_dir={base}", "search.exhaustive_below=0"]
    before = processor_seconds()
    summary = pipeline.run(load_config(None, [*given, *settings]))
    seconds = {stage: record.seconds for stage, record in summary.records.items()}
    return {
        "seconds": round(sum(seconds.values()), 1),
        "cpu_seconds": round(processor_seconds() - before, 1),
        "stages": seconds,
        "nlist": summary.figure("index", "nlist"),
        "nprobe": summary.figure("index", "nprobe"),
        "recall": summary.figure("pairs", "recall"),
        "n_near_edges": summary.figure("pairs", "n_near_edges"),
        "n_groups": summary.figure("groups", "n_groups"),
    }


def measure(args: argparse.Namespace) -> dict[str, object]:
    """A run over the old vectors, one that adds the new ones, and one over all."""
    with tempfile.TemporaryDirectory(prefix="dedup-bench-", dir=args.scratch) as folder:
        scratch = Path(folder)
        if args.pictures:
            tasks = [(scratch / f"{number:03d}.tar", number, args.n // FILES, args.share, args.equal) for number in range(FILES)]
            with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
                folders = list(pool.map(write_tar, tasks))
        else:
            folders = write_files(scratch / "vectors", args.n, args.dim, share=args.share, equal=args.equal)
        n_old = FILES - max(1, round(args.new * FILES))
        settings = [f"index.codes={args.codes}", f"engine.workers={args.workers}", *args.settings]
        figures = {"old": run(folders[:n_old], scratch, "old", "", settings)}
        figures["added"] = run(folders[n_old:], scratch, "added", str(scratch / "old"), settings)
        shutil.rmtree(scratch / "old")
        shutil.rmtree(scratch / "added")
        figures["all"] = run(folders, scratch, "all", "", settings)
    share, cpu_share = (figures["added"][name] / figures["all"][name] for name in ("seconds", "cpu_seconds"))  # type: ignore[operator]
    return {
        "n": args.n,
        "dim": args.dim,
        "new": 1.0 - n_old / FILES,
        **figures,
        "share": round(share, 3),
        "cpu_share": round(cpu_share, 3),
        "machine": describe_machine(),
    }


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--new", type=float, default=0.1, help="share of the vectors that are added")
    parser.add_argument("--share", type=float, default=0.05, help="share of the vectors that are near copies of others")
    parser.add_argument("--equal", type=float, default=0.01, help="share of the vectors that are equal to others")
    parser.add_argument("--pictures", action="store_true", help="small JPEGs in tars instead of vectors")
    parser.add_argument("--codes", default="auto")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--scratch", default=None, help="folder for vectors and run directories")
    parser.add_argument("settings", nargs="*", help="further settings, such as search.min_similarity=0.9")
    print(json.dumps(measure(parser.parse_args()), indent=1))


if __name__ == "__main__":
    main()
