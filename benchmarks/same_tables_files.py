"""Inputs of `same_tables.py`: demo shards, and what is made from them. Imports nothing of `dedup`, since that would be of one tree only."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

CARRIED = ("similarity", "punsafe", "LICENSE")
SUFFIXES = {"jpg", "png", "webp", "gif", "bmp", "tif", "tiff"}
GENERATIONS, NEAR = 12, 10  # of each target, and how many of them are its picture: the least for a clique
BASES, PASTED = 7, 4  # pictures that others are pasted into, and how many into each
SIDE = 96  # of the generations, in pixels


def write_inputs(shards: list[Path], folder: Path) -> None:
    """Write all that the runs read besides the demo shards, and one more shard of pictures that only pixels tell apart."""
    first = [picture_of(members) for _, members in samples_of(shards[0])]
    write_alike(shards[0].with_name("alike.tar"), [data for data in first if is_picture(data)][5:])
    shards = [*shards, shards[0].with_name("alike.tar")]
    samples = {path: list(samples_of(path)) for path in shards}
    write_sidecars(folder / "sidecar", samples)
    whole = [(key, members) for key, members in samples[shards[0]] if is_picture(picture_of(members))]
    write_images(folder / "images", folder / "captions.csv", whole)
    last = [(key, members) for key, members in samples[shards[-2]] if is_picture(picture_of(members))]
    write_reference(folder / "reference", last[:3])
    (folder / "exclude.txt").write_text("".join(f"key:{key}\n" for key, _ in whole[3:5]))
    write_queries(folder / "queries", [picture_of(members) for _, members in whole[:3]])
    if importlib.util.find_spec("torch"):
        write_model(folder / "tiny.torchscript.pt")


def samples_of(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and members of each sample of a tar, in order; the first of a repeated key."""
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, _, suffix = member.name.partition(".")
            data = tar.extractfile(member)
            if data is not None:
                samples.setdefault(key, {}).setdefault(suffix, data.read())
    yield from samples.items()


def picture_of(members: dict[str, bytes]) -> bytes:
    """The image of a sample, or nothing."""
    return next((data for suffix, data in members.items() if suffix in SUFFIXES), b"")


def is_picture(data: bytes) -> bool:
    """Whether an image can be decoded completely."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(io.BytesIO(data)).convert("RGB")
    except OSError:
        return False
    return True


def write_alike(path: Path, pictures: list[bytes]) -> None:
    """One picture with another in its middle, a different one each time; and windows that slide over a picture, a chain of near copies."""
    size = (320, 240)
    opened = [Image.open(io.BytesIO(data)).convert("RGB").resize(size) for data in pictures[: BASES * (1 + PASTED)]]
    with tarfile.open(path, "w") as tar:
        for number, base in enumerate(opened[:BASES]):
            made = []
            for pasted in opened[BASES + number * PASTED :][:PASTED]:
                image = base.copy()
                image.paste(pasted.resize((110, 84)), (105, 78))
                made.append(image)
            made += [base.crop((left, 0, left + 220, 240)) for left in (0, 35, 70, 100)]
            for place, image in enumerate(made):
                add_sample(tar, f"9{number:04d}{place:04d}", image, number + place / 10)


def add_sample(tar: tarfile.TarFile, key: str, image: Image.Image, similarity: float) -> None:
    """Image, caption and json, as in the samples of the demo."""
    file, url = io.BytesIO(), f"https://images.example.org/{key}.jpg"
    image.save(file, "JPEG", quality=90)
    about = {"key": key, "url": url, "caption": f"alike {key[:5]}", "similarity": similarity, "punsafe": 0.1, "LICENSE": "?"}
    for suffix, data in (("jpg", file.getvalue()), ("json", json.dumps(about).encode()), ("txt", str(about["caption"]).encode())):
        member = tarfile.TarInfo(f"{key}.{suffix}")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))


def write_sidecars(folder: Path, samples: dict[Path, list[tuple[str, dict[str, bytes]]]]) -> None:
    """The shards again, with a parquet file of captions, addresses and further columns beside each."""
    folder.mkdir()
    for path, rows in samples.items():
        (folder / path.name).hardlink_to(path)
        told = [json.loads(members["json"]) for _, members in rows if "json" in members]
        columns = {name: [row.get(name) for row in told] for name in ("key", "url", "caption", *CARRIED)}
        pq.write_table(pa.table(columns), folder / f"{path.stem}.parquet")


def write_images(folder: Path, captions: Path, samples: list[tuple[str, dict[str, bytes]]]) -> None:
    """A folder of images with subfolders; one file of captions for all but every fifth."""
    with captions.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "caption", "url"])
        for number, (key, members) in enumerate(samples):
            suffix = next(suffix for suffix in members if suffix in SUFFIXES)
            path = folder / f"part-{number % 3}" / f"{key}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(members[suffix])
            if number % 5:
                about = json.loads(members["json"])
                writer.writerow([path.relative_to(folder).as_posix(), about["caption"], about["url"]])


def write_reference(folder: Path, samples: list[tuple[str, dict[str, bytes]]]) -> None:
    """Pictures that no training sample may be near: changed copies of some."""
    folder.mkdir()
    for key, members in samples:
        picture = Image.open(io.BytesIO(picture_of(members))).convert("RGB")
        picture.save(folder / f"{key}.jpg", quality=60)


def write_queries(folder: Path, pictures: list[bytes]) -> None:
    """Copies changed in several ways, a picture that is nowhere, and a broken one."""
    folder.mkdir()
    first, second, third = (Image.open(io.BytesIO(data)).convert("RGB") for data in pictures)
    first.save(folder / "same.png")
    ImageOps.mirror(first).save(folder / "mirrored.png")
    second.crop((second.width // 6, second.height // 6, second.width, second.height)).save(folder / "cropped.png")
    ImageOps.expand(third, 24, "white").save(folder / "framed.png")
    third.resize((third.width // 2, third.height // 2)).save(folder / "small.jpg", quality=50)
    noise = np.random.default_rng(3).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((240, 240), Image.Resampling.BICUBIC).save(folder / "unknown.png")
    (folder / "broken.jpg").write_bytes(pictures[0][:200])


def write_model(path: Path) -> None:
    """A TorchScript encoder: a convolution, pooled, of fixed weights."""
    import torch

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv2d(3, 48, 8, stride=8)
            self.last = torch.nn.Linear(48, 24)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.last(torch.relu(self.convolution(images)).mean(dim=(2, 3)))

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, but users have it
        torch.jit.script(Pooled().eval()).save(str(path))


def write_generations(folder: Path, targets: list[dict[str, object]]) -> None:
    """For each target enough noisy copies of its picture that it counts as memorised, for every third one too few; the rest is noise."""
    for number, target in enumerate(targets):
        with open(str(target["shard"]), "rb") as shard:
            shard.seek(int(str(target["byte_offset"])))
            data = shard.read(int(str(target["n_bytes"])))
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE)), np.float64)
        rng, n_near = np.random.default_rng([4, number]), NEAR - (number % 3 == 2)
        (folder / str(target["target_id"])).mkdir(parents=True)
        for place in range(GENERATIONS):
            made = pixels + rng.normal(0, 6, pixels.shape) if place < n_near else rng.integers(0, 256, pixels.shape)
            image = Image.fromarray(np.clip(np.rint(made), 0, 255).astype(np.uint8))
            image.save(folder / str(target["target_id"]) / f"{place:03d}.png")
