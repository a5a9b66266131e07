"""Small shards with known copies, made by the tests."""

import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter


def scene(seed, size=(96, 80)):
    """A picture of smooth random colour that no other seed comes near."""
    noise = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def detailed(seed, size=(160, 128)):
    """A scene with edges enough to be registered."""
    rng = np.random.default_rng(seed)
    picture = np.asarray(scene(seed, size)).astype(np.float32)
    for _ in range(14):
        y, x = rng.integers(0, size[1] - 20), rng.integers(0, size[0] - 20)
        height, width = rng.integers(8, 40, 2)
        picture[y : y + height, x : x + width] = 0.4 * picture[y : y + height, x : x + width] + 0.6 * rng.integers(0, 256, 3)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def encode(picture, kind="JPEG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"quality": 92} if kind == "JPEG" else {}) | options)
    return buffer.getvalue()


@dataclass
class Sample:
    key: str
    image: bytes
    caption: str | None = None
    source: int = -1  # samples of one source are copies
    suffix: str = "jpg"
    url: str | None = None
    extra: dict = field(default_factory=dict)


def write_tar(path, samples):
    """A webdataset shard: image, txt, json of each sample."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for sample in samples:
            members = [(sample.suffix, sample.image)]
            if sample.caption is not None:
                members.append(("txt", sample.caption.encode()))
            members.append(
                (
                    "json",
                    json.dumps({"key": sample.key, "url": sample.url or f"https://example.org/{sample.key}.jpg", **sample.extra}).encode(),
                )
            )
            for suffix, data in members:
                info = tarfile.TarInfo(f"{sample.key}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def copies(picture):
    """Changed copies that the default encoder finds."""
    width, height = picture.size
    yield encode(picture, quality=30)
    yield encode(picture.resize((width * 2, height * 2), Image.Resampling.BICUBIC))
    yield encode(picture, "PNG")
    yield encode(picture.filter(ImageFilter.GaussianBlur(1)))
    yield encode(picture.point(lambda value: min(255, int(value * 1.1))))


def make_samples(n_scenes=60, seed=0, n_broken=3):
    """Scenes, some with changed and byte-identical copies, shuffled; a few that can't be read."""
    rng = np.random.default_rng(seed)
    entries = []
    for source in range(n_scenes):
        picture = scene(1000 * seed + source)
        original = encode(picture)
        entries.append((source, original, f"scene {source}"))
        if source % 4 == 0:
            entries += [
                (source, data, f"scene {source}" if i % 2 else f"another view of {source}") for i, data in enumerate(copies(picture))
            ]
        if source % 6 == 0:
            entries += [(source, original, f"scene {source}")] * 2
    entries += [(-1, original[: 40 + 9 * i], "broken") for i in range(n_broken)]
    order = rng.permutation(len(entries))
    return [Sample(f"{i:06d}", entries[k][1], entries[k][2], entries[k][0]) for i, k in enumerate(order)]


def write_shards(folder, samples, per_shard=40):
    for start in range(0, len(samples), per_shard):
        write_tar(Path(folder) / f"{start // per_shard:05d}.tar", samples[start : start + per_shard])
    return str(Path(folder) / "*.tar")
