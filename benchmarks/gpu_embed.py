"""Embedding with a model, from JPEG tars to files, against the rate of the model alone on the same device in the same run.

    python benchmarks/gpu_embed.py --models ViT-B-32 ViT-L-14 --json gpu_embed.json
    python benchmarks/gpu_embed.py --models ViT-B-32 --device cpu --n-images 200        # the worker's time over the model's

Needs torch and open_clip, no Spark and no weights: without --pretrained a checkpoint of random weights is written, which takes
as long. Without --shards JPEGs of 110 KB are made. For each model, after a warm-up:

    model     the model alone: batches that lie on the device already
    decode    the worker's threads alone: tars to prepared batches
    worker    a whole partition: tar, decoding, SHA-256, quality, model, vectors, metadata

and of the worker its share of the model's rate, how busy the cores and how long the model computed. The worker's goal is 90% of
the model's rate for ViT-L-14, and for ViT-B-32 60%, or that decoding keeps all cores busy.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch

import dedup
from dedup.config import Config
from dedup.config.load import resolved
from dedup.demo.shards import make_demo_data
from dedup.encoders import load_encoder
from dedup.encoders.encoder import Encoder
from dedup.machine import available_cores, given_gpus
from dedup.numerics.image.descriptor import Crop
from dedup.stages.embed.partition import EmbedTask, embed_partition, open_source
from dedup.stages.embed.prepare import Preparation, in_chunks, in_order

PUBLIC = {"ViT-B-32": 2_500, "ViT-L-14": 312}  # clip-retrieval, images/s on one A100


@dataclass
class Row:
    """Images/s of each part; shares of the worker's time."""

    model: str
    precision: str
    batch_size: int
    threads: int
    model_alone: float
    decode: float
    worker: float
    share_of_model: float
    cores_busy: float
    model_busy: float
    public: float | None


def checkpoint(model: str, folder: str) -> str:
    """A file of random weights, as large and as slow as trained ones."""
    path = os.path.join(folder, f"{model}.pt")
    if not os.path.exists(path):
        torch.manual_seed(0)
        torch.save(open_clip.create_model(model, pretrained=None).state_dict(), path)
    return path


def model_alone(encoder: dedup.encoders.clip.ClipEncoder, batch_size: int, seconds: float) -> float:
    """Images/s of the model on batches that lie on its device."""
    device, (height, width) = (
        torch.device(encoder.device),
        encoder.prepare(Crop(np.zeros((9, 9, 3), np.uint8), (0, 0, 9, 9))).shape[:2],
    )
    images = torch.randn(batch_size, 3, height, width, device=device).to(encoder.dtype)
    with torch.inference_mode():
        for _ in range(2):
            encoder.embed(images)
        n, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            for _ in range(4 if device.type == "cuda" else 1):
                encoder.embed(images)
                n += batch_size
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return n / (time.perf_counter() - started)


def decode_alone(config: Config, encoder: Encoder, shards: list[str], n_threads: int) -> float:
    """Images/s from tars to the input of the model."""
    preparation = Preparation(encoder, config.input.max_pixels, finds_inner=False, keeps_thumbnails=False)
    samples = ((0, sample) for shard in shards for sample in open_source(config, shard))
    started = time.perf_counter()
    n = sum(1 for _ in in_order(preparation.each, in_chunks(samples), n_threads))
    return n / (time.perf_counter() - started)


class Timed:
    """The model, with its computing time: measured on a GPU by CUDA events, which do not hold up its work."""

    def __init__(self, embed: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._embed = embed
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._seconds = 0.0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        if images.device.type != "cuda":
            started = time.perf_counter()
            rows = self._embed(images)
            self._seconds += time.perf_counter() - started
            return rows
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        rows = self._embed(images)
        last.record()
        self._events.append((first, last))
        return rows

    def seconds(self) -> float:
        for _, last in self._events:
            last.synchronize()
        return self._seconds + sum(first.elapsed_time(last) for first, last in self._events) / 1e3


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(name: str, shards: list[str], options: argparse.Namespace, folder: str) -> Row:
    pretrained = options.pretrained or checkpoint(name, folder)
    n_threads = options.decode_threads if options.decode_threads >= 0 else (available_cores() if torch.cuda.is_available() else 0)
    settings = [
        "encoder.name=clip",
        f"encoder.model={name}",
        f"encoder.pretrained={pretrained}",
        f"encoder.precision={options.precision}",
        f"engine.device={options.device}",
        f"encoder.compile={str(options.compile).lower()}",
        f"embed.decode_threads={n_threads}",
        f"output.run_dir={folder}/run-{name}",
        f"input.shards={options.shards or shards[0]}",
    ]
    config = resolved(dedup.load_config(None, settings))
    with given_gpus(["0"] if torch.cuda.is_available() else [], available_cores()):
        encoder = load_encoder(config.encoder, config.engine.device)
        batch_size = options.batch_size or encoder.batch_size
        warm = EmbedTask(config, 0, (shards[0],), "warm-up", batch_size=batch_size)
        embed_partition(warm)
        alone = [model_alone(encoder, batch_size, options.seconds)]
        task = EmbedTask(config, 1, tuple(shards), "measured", batch_size=batch_size)
        model, encoder.embed = encoder.embed, (timed := Timed(encoder.embed))
        busy, started = cpu_seconds(), time.perf_counter()
        result = embed_partition(task)
        wall, busy = time.perf_counter() - started, cpu_seconds() - busy
        encoder.embed = model
        alone.append(model_alone(encoder, batch_size, options.seconds))  # before and after, since machines are shared
        decode = decode_alone(config, encoder, shards, n_threads)
    rate, best = result.n_samples / wall, float(np.mean(alone))
    return Row(
        name,
        str(encoder.dtype).removeprefix("torch."),
        batch_size,
        n_threads,
        round(best, 2),
        round(decode, 1),
        round(rate, 2),
        round(rate / best, 3),
        round(busy / wall / available_cores(), 3),
        round(timed.seconds() / wall, 3),
        PUBLIC.get(name),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["ViT-B-32", "ViT-L-14"])
    parser.add_argument("--pretrained", default="", help="a checkpoint of the model; only with one model")
    parser.add_argument("--shards", default="", help="tars; globs are expanded")
    parser.add_argument("--n-images", type=int, default=20_000, help="images to make if no tars are given")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=0)
    parser.add_argument("--decode-threads", type=int, default=-1, help="-1 = the cores with a GPU, else 0")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each of the two times the model is measured alone")
    parser.add_argument("--json", default="")
    parser.add_argument("--scratch", default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dedup-bench-", dir=options.scratch) as folder:
        if not options.shards:
            options.shards = f"{folder}/shards/*.tar"
            per_shard = max(1, min(1_000, options.n_images // 2))
            make_demo_data(f"{folder}/shards", n_images=options.n_images, per_shard=per_shard, jpeg_size=110_000, workers=available_cores())
        shards = sorted(glob.glob(options.shards))
        rows = [measure(model, shards, options, folder) for model in options.models]
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() and options.device != "cpu" else "no GPU"
    columns = list(asdict(rows[0]))
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(value) for value in asdict(row).values()) + " |")
    machine = {
        "gpu": gpu,
        "cores": available_cores(),
        "cpu": platform.machine(),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
    }
    print(json.dumps(machine))
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
