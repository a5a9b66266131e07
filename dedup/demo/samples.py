"""One sample of a demo corpus: its image's bytes, its caption, its metadata and its row of the truth."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dedup.demo.captions import caption, vary
from dedup.demo.plan import BREAKS, BROKEN, COPY, EXACT, ORIGINAL
from dedup.demo.scenes import KINDS, photo_scenes, procedural_scene
from dedup.numerics.planting import Change, changes

Pixels = npt.NDArray[np.uint8]
MIN_JPEG_SIZE, MAX_JPEG_SIZE = 10_000, 120_000  # what 400 x 350 pixels can be brought to
_SIZED = (400, 350)  # of every image where a file size is asked for
_MIN_QUALITY, _MAX_QUALITY = 5, 96
_MAX_GRAIN = 64.0  # grey levels
_TOLERANCE = 0.07  # of the file size asked for; 0.10 is promised
_BAD_BYTES = b"<html><head><title>403 Forbidden</title></head><body>nginx</body></html>"

_FOUND = tuple(change for change in changes() if change.is_expected)
_MISSED = tuple(change for change in changes(strengths="all") if not change.is_expected)
_MISSED_SHARE = 0.12  # of the changed copies


@dataclasses.dataclass(frozen=True)
class Sample:
    """A sample as it goes into the tar.

    Attributes
    ----------
    key, suffix : str
        The image's member is ``key.suffix``.
    image : bytes
    caption : str or None
    meta : bytes
        JSON as img2dataset writes it.
    change, family : str
        Of the truth: name and family of the planted change, "original", "exact", or how it is broken.
    is_broken, is_expected : bool
        Whether a run must reject it; whether the default settings are expected to find it a copy of its original.
    """

    key: str
    suffix: str
    image: bytes
    caption: str | None
    meta: bytes
    change: str
    family: str
    is_broken: bool
    is_expected: bool


@dataclasses.dataclass(frozen=True)
class SampleMaker:
    """Makes any sample of a corpus from the seed, without the others.

    Attributes
    ----------
    seed : int
    n_photos, first_broken : int
        Of the `Plan`.
    jpeg_size : int or None
        Bytes that every image should have.
    """

    seed: int
    n_photos: int
    first_broken: int
    jpeg_size: int | None = None

    def make(self, position: int, source: int, role: int, key: str, earlier_key: str | None) -> Sample:
        """Make one sample.

        Parameters
        ----------
        position : int
            In the corpus: seeds what is the sample's own.
        source, role : int
            Of the `Plan`.
        key : str
        earlier_key : str or None
            Key of an earlier sample of the shard, for the one that repeats a key.
        """
        own = np.random.default_rng([self.seed, 3, position])
        pixels, subject = self._scene(source)
        source_rng = np.random.default_rng([self.seed, 2, source])  # what the original and its exact copies share
        words = caption(source_rng, subject)
        change: Change | None = None
        name = family = "original" if role == ORIGINAL else "exact"
        if role == COPY:
            listed = _MISSED if own.random() < _MISSED_SHARE else _FOUND
            change = _pick_by_family(own, listed)
            name, family = change.name, change.family
            pixels = change.apply(pixels, own)
        suffix, image = self._encode(pixels, own if role == COPY else source_rng)
        text: str | None = vary(own, words, subject) if role in (COPY, EXACT) and own.random() < 0.45 else words
        is_broken = False
        if role == BROKEN:
            name, family = BREAKS[(source - self.first_broken) % len(BREAKS)], "broken"
            is_broken = name != "no_caption"
            if name == "duplicate_key" and earlier_key is None:
                name = "zero_bytes"
            if name == "no_caption":
                text, family = None, "no_caption"
            elif name == "duplicate_key":
                key = str(earlier_key)
            else:
                suffix, image = "jpg", _break(name, pixels)
        is_expected = not is_broken and (change is None or change.is_expected)
        meta = self._meta(own, position, key, suffix, image, text, pixels.shape)
        return Sample(key, suffix, image, text, meta, name, family, is_broken, is_expected)

    def _scene(self, source: int) -> tuple[Pixels, str]:
        if source < self.n_photos:
            photo = photo_scenes()[source]
            return (photo.pixels if self.jpeg_size is None else _to_area(photo.pixels)), photo.name
        rng = np.random.default_rng([self.seed, 1, source])
        kind = list(KINDS)[int(rng.integers(len(KINDS)))]
        width, height = int(rng.integers(320, 481)), int(rng.integers(280, 401))
        return procedural_scene(rng, (width, height) if self.jpeg_size is None else _SIZED, kind), kind

    def _encode(self, pixels: Pixels, rng: np.random.Generator) -> tuple[str, bytes]:
        if self.jpeg_size is not None:
            return "jpg", encode_to_size(_to_area(pixels), self.jpeg_size, rng)
        draw, quality = rng.random(), int(rng.integers(80, 96))
        buffer = io.BytesIO()
        image = Image.fromarray(pixels)
        if draw < 0.85:
            image.save(buffer, "JPEG", quality=quality)
            return "jpg", buffer.getvalue()
        if draw < 0.93:
            image.save(buffer, "PNG", compress_level=3)
            return "png", buffer.getvalue()
        image.save(buffer, "WEBP", quality=quality, method=2)
        return "webp", buffer.getvalue()

    def _meta(
        self, rng: np.random.Generator, position: int, key: str, suffix: str, image: bytes, text: str | None, shape: tuple[int, ...]
    ) -> bytes:
        site = hashlib.sha256(f"{self.seed}/{position}".encode()).hexdigest()[:12]
        scale = float(rng.uniform(1.0, 4.0))
        meta: dict[str, Any] = {
            "caption": text,
            "url": f"https://images.example.org/{site}.{suffix}",
            "key": key,
            "status": "success",
            "error_message": None,
            "width": shape[1],
            "height": shape[0],
            "original_width": round(shape[1] * scale),
            "original_height": round(shape[0] * scale),
            "exif": "{}",
            "sha256": hashlib.sha256(image).hexdigest(),
            "similarity": round(float(rng.uniform(0.28, 0.42)), 6),
            "punsafe": round(float(rng.beta(1, 30)), 6),
            "pwatermark": round(float(rng.beta(1, 4)), 6),
            "LICENSE": str(rng.choice(["?", "cc-by-2.0", "cc0"])),
            "NSFW": "UNLIKELY",
        }
        return json.dumps(meta).encode()


def _pick_by_family(rng: np.random.Generator, listed: tuple[Change, ...]) -> Change:
    # by family first: crops have more strengths than grey, and are not more common for that
    families = sorted({change.family for change in listed})
    family = families[int(rng.integers(len(families)))]
    members = [change for change in listed if change.family == family]
    return members[int(rng.integers(len(members)))]


def _break(name: str, pixels: Pixels) -> bytes:
    if name == "zero_bytes":
        return b""
    if name == "not_an_image":
        return _BAD_BYTES
    data = _jpeg(pixels, 90)
    return data[: len(data) * 3 // 5]


def _to_area(pixels: Pixels) -> Pixels:
    """Resize to the pixels of `_SIZED`, the sides' ratio kept."""
    height, width, _ = pixels.shape
    scale = (_SIZED[0] * _SIZED[1] / (width * height)) ** 0.5
    if 0.98 < scale < 1.02:
        return pixels
    return np.asarray(
        Image.fromarray(pixels).resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BICUBIC)
    )


def _jpeg(pixels: Pixels, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def encode_to_size(pixels: Pixels, n_bytes: int, rng: np.random.Generator) -> bytes:
    """Encode a JPEG of about a given size: by its quality, then by film grain where the best quality is too small.

    Parameters
    ----------
    pixels : uint8 array, shape (height, width, 3)
    n_bytes : int
        `MIN_JPEG_SIZE` to `MAX_JPEG_SIZE` for the pixels of a demo image.
    rng : numpy.random.Generator
        Draws the grain.

    Returns
    -------
    bytes
        Within 10% of `n_bytes`.
    """
    low, high, data = _MIN_QUALITY, _MAX_QUALITY + 1, _jpeg(pixels, _MAX_QUALITY)
    if len(data) <= n_bytes * (1 + _TOLERANCE):
        low = _MAX_QUALITY
    while high - low > 1:  # the best quality that is not too large
        quality = (low + high) // 2
        data = _jpeg(pixels, quality)
        if abs(len(data) - n_bytes) <= _TOLERANCE * n_bytes:
            return data
        low, high = (quality, high) if len(data) < n_bytes else (low, quality)
    grain = rng.standard_normal((*pixels.shape[:2], 1), dtype=np.float32)
    below, above, deviation = 0.0, _MAX_GRAIN, 8.0
    for _ in range(16):  # size grows with the grain: halve the interval in its logarithm
        if abs(len(data) - n_bytes) <= _TOLERANCE * n_bytes:
            break
        data = _jpeg(np.clip(pixels + grain * np.float32(deviation) + np.float32(0.5), 0, 255).astype(np.uint8), low)
        below, above = (deviation, above) if len(data) < n_bytes else (below, deviation)
        deviation = (max(below, 0.25) * above) ** 0.5
    return data
