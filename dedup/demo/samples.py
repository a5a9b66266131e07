"""The samples of a demo corpus: bytes of the image, caption, metadata, and row of the truth."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dedup.demo.pictures import KINDS, Pixels, photo_scenes, procedural_scene
from dedup.numerics.image.planting import Change, changes

ORIGINAL, COPY, EXACT, BROKEN = range(4)
BREAKS = ("zero_bytes", "truncated", "not_an_image", "no_caption", "duplicate_key")
_COPY_SHARE = 0.2
_BROKEN_SHARE = 0.005
_EXACT_SHARE = 0.3
_LARGEST_GROUP = 150
_MAX_GROUP = 12

# several captions of what a picture shows: photos by file name, procedural scenes by kind
_SUBJECTS: dict[str, tuple[str, ...]] = {
    "astronaut": ("astronaut in an orange space suit", "portrait of an astronaut with a shuttle model", "NASA astronaut official portrait"),
    "chelsea": ("tabby cat looking to the side", "close-up of a ginger cat", "Chelsea the cat"),
    "coffee": ("cup of espresso on a red saucer", "coffee on a wooden table", "espresso in a red cup"),
    "china": ("pagoda above the trees by a lake", "Summer Palace in Beijing", "Chinese temple tower"),
    "flower": ("orange dahlia in bloom", "peach dahlia on dark leaves", "dahlia flower macro"),
    "rocket": ("rocket on the launch pad at dusk", "rocket ready for launch", "launch pad at night"),
    "motorcycle_left": ("red motorcycle in a garage", "classic motorbike, red tank", "motorcycle restoration project"),
    "camera": ("cameraman in a black coat", "photographer with a tripod, black and white", "man filming on a lawn"),
    "hubble_deep_field": ("galaxies in deep space", "Hubble deep field detail", "star field with distant galaxies"),
    "retina": ("retina fundus photograph", "blood vessels of the eye", "fundus image of a human eye"),
    "ihc": ("stained tissue under the microscope", "immunohistochemistry slide", "histology sample, brown stain"),
    "coins": ("ancient coins in rows", "Greek coins from Pompeii", "old silver coins"),
    "gravel": ("grey gravel texture", "crushed stone background", "gravel seen from above"),
    "grass": ("grass texture black and white", "lawn seen from above", "dry grass background"),
    "brick": ("brick wall texture", "old brick paving", "wall of grey bricks"),
    "page": ("scan of a textbook page", "page on region-based segmentation", "printed text, uneven light"),
    "text": ("handwriting on squared paper", "handwritten formulas", "notes in pencil"),
    "horse": ("horse silhouette", "black horse vector", "standing horse clipart"),
    "logo": ("green and orange snake logo", "round logo with a snake", "software project logo"),
    "marble": ("marble texture", "ink clouds in water", "abstract fluid painting", "polished stone surface"),
    "relief": ("relief map of mountains", "rough plaster wall", "terrain from above", "embossed texture"),
    "waves": ("psychedelic waves", "agate slice pattern", "abstract wavy lines", "zebra pattern"),
    "ridges": ("misty mountains at sunset", "layered mountain landscape", "hills under a cloudy sky", "mountain silhouette wallpaper"),
    "skyline": ("city skyline at night", "downtown towers", "skyscrapers under clouds", "lights of the city"),
    "mosaic": ("stained glass window", "broken tile mosaic", "low poly background", "voronoi pattern"),
    "shapes": ("geometric abstract art", "modernist composition", "colourful shapes poster", "suprematist painting"),
    "bokeh": ("bokeh lights background", "blurred lights at night", "glitter and soft circles", "dreamy bokeh"),
    "poster": ("motivational poster", "typography print", "word art poster", "concert flyer"),
}

_PREFIXES = ("", "", "", "Beautiful ", "New ", "Vintage ", "Free ", "Amazing ", "The best ", "Original ", "Custom ")

_TAILS = (
    "", "", "", "", " - stock photo", " | wall art print", " (4K wallpaper)", ", high resolution", " for sale", " - Wikimedia Commons",
    " royalty free image", " canvas print", " by {artist}", " in {place}", " {year}", " - {place}, {year}", " #{number}",
    " ({number} of 500)",
)  # fmt: skip

_ARTISTS = ("Anna Keller", "J. Moreau", "Liu Wei", "Maria Santos", "Tom Archer", "Ines Duarte", "K. Novak", "Sara Lind", "Omar Haddad")
_PLACES = ("Lisbon", "Kyoto", "Oslo", "Patagonia", "Vermont", "Cape Town", "Vienna", "Nepal", "Arizona", "Edinburgh", "Hanoi", "Crete")
MIN_JPEG_SIZE, MAX_JPEG_SIZE = 10_000, 120_000  # bytes that 400 x 350 pixels can be encoded to
_SIZE = (400, 350)  # of every image where a file size is given
_MIN_QUALITY, _MAX_QUALITY = 5, 96
_MAX_GRAIN = 64.0  # grey levels
_TOLERANCE = 0.07  # of the given file size; 0.10 is promised
_BAD_BYTES = b"<html><head><title>403 Forbidden</title></head><body>nginx</body></html>"
_EXPECTED = tuple(change for change in changes() if change.is_expected)
_MISSED = tuple(change for change in changes(strengths="all") if not change.is_expected)
_MISSED_SHARE = 0.12  # of the changed copies


@dataclasses.dataclass(frozen=True)
class Plan:
    """What every sample of a corpus is."""

    sources: npt.NDArray[np.int32]  # shape (n_images,); samples with equal numbers show one scene, a photo below `n_photos`
    roles: npt.NDArray[np.int8]  # shape (n_images,); `ORIGINAL`, `COPY` (changed), `EXACT` (the original's bytes) or `BROKEN`
    n_photos: int  # they are the first samples
    # sources from here on are those of broken samples, one each; ``BREAKS[(source - first_broken) % len(BREAKS)]`` is how it is broken
    first_broken: int


@dataclasses.dataclass(frozen=True)
class Sample:
    """A sample as it goes into the tar."""

    key: str
    suffix: str  # the image's member is ``key.suffix``
    image: bytes
    caption: str | None
    meta: bytes  # JSON as img2dataset writes it
    change: str  # name of the planted change, "original", "exact", or how it is broken
    family: str  # of the change
    is_broken: bool  # whether a run must reject it
    is_expected: bool  # whether the default settings are expected to find it a copy of its original


@dataclasses.dataclass(frozen=True)
class SampleMaker:
    """Makes any sample of a corpus from the seed, without the others."""

    seed: int
    n_photos: int  # of the `Plan`, like the next
    first_broken: int
    jpeg_size: int | None = None  # bytes that every image should have

    def make(self, position: int, source: int, role: int, key: str, earlier_key: str | None) -> Sample:
        """Make one sample.

        `position`: in the corpus; seeds all that copies of one scene do not share.
        `source`, `role`: of the `Plan`.
        `earlier_key`: of an earlier sample in the shard, for the broken sample that repeats a key.
        """
        sample_rng = np.random.default_rng([self.seed, 3, position])
        pixels, subject = self._scene(source)
        source_rng = np.random.default_rng([self.seed, 2, source])  # what the original and its exact copies share
        words = caption(source_rng, subject)
        change: Change | None = None
        name = family = "original" if role == ORIGINAL else "exact"
        if role == COPY:
            pool = _MISSED if sample_rng.random() < _MISSED_SHARE else _EXPECTED
            change = pick_by_family(sample_rng, pool)
            name, family = change.name, change.family
            pixels = change.apply(pixels, sample_rng)
        suffix, image = self._encode(pixels, sample_rng if role == COPY else source_rng)
        text: str | None = vary(sample_rng, words, subject) if role in (COPY, EXACT) and sample_rng.random() < 0.45 else words
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
        meta = self._meta(sample_rng, position, key, suffix, image, text, pixels.shape)
        return Sample(key, suffix, image, text, meta, name, family, is_broken, is_expected)

    def _scene(self, source: int) -> tuple[Pixels, str]:
        if source < self.n_photos:
            photo = photo_scenes()[source]
            return (photo.pixels if self.jpeg_size is None else _to_area(photo.pixels)), photo.name
        rng = np.random.default_rng([self.seed, 1, source])
        kind = list(KINDS)[int(rng.integers(len(KINDS)))]
        width, height = int(rng.integers(320, 481)), int(rng.integers(280, 401))
        return procedural_scene(rng, (width, height) if self.jpeg_size is None else _SIZE, kind), kind

    def _encode(self, pixels: Pixels, rng: np.random.Generator) -> tuple[str, bytes]:
        if self.jpeg_size is not None:
            return "jpg", encode_to_size(_to_area(pixels), self.jpeg_size, rng)
        draw, quality = rng.random(), int(rng.integers(80, 96))
        if draw < 0.85:
            return "jpg", _encoded(pixels, "JPEG", quality=quality)
        if draw < 0.93:
            return "png", _encoded(pixels, "PNG", compress_level=3)
        return "webp", _encoded(pixels, "WEBP", quality=quality, method=2)

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


def make_plan(n_images: int, seed: int, *, n_photos: int, with_broken: bool = True) -> Plan:
    """Draw the plan of a corpus.

    `n_images`: at least 20.
    `n_photos`: photos available; at most a quarter of the originals are photos.
    `with_broken`: whether some 0.5% of the samples are broken.

    A fifth of the samples are copies: one group of 150 samples of photo 0 (a tenth of a corpus of fewer than 1,500), the rest in groups
    of 2 to 12, the largest of them of photos.

    Examples
    --------
    >>> plan = make_plan(1000, seed=0, n_photos=42)
    >>> int((plan.sources == 0).sum()), int((plan.roles == BROKEN).sum())
    (100, 5)
    """
    rng = np.random.default_rng([seed, 0])
    n_broken = max(min(len(BREAKS), n_images // 20), round(n_images * _BROKEN_SHARE)) if with_broken else 0
    n_copies = round(n_images * _COPY_SHARE)
    n_sources = n_images - n_copies - n_broken
    n_photos = min(n_photos, n_sources // 4)
    n_of_largest = max(1, min(_LARGEST_GROUP, n_images // 10) - 1)

    copies = np.concatenate([np.zeros(n_of_largest, dtype=np.int64), _groups(rng, n_copies - n_of_largest, n_photos, n_sources)])
    copy_roles = np.where(rng.random(n_copies) < _EXACT_SHARE, EXACT, COPY)
    copy_roles[0] = EXACT  # the largest group has byte-identical copies at any size

    sources = np.concatenate([np.arange(n_sources), copies, np.arange(n_sources, n_sources + n_broken)])
    roles = np.concatenate([np.full(n_sources, ORIGINAL), copy_roles, np.full(n_broken, BROKEN)])
    order = np.concatenate([np.arange(n_photos), n_photos + rng.permutation(n_images - n_photos)])
    return Plan(sources[order].astype(np.int32), roles[order].astype(np.int8), n_photos, n_sources)


def _groups(rng: np.random.Generator, n_copies: int, n_photos: int, n_sources: int) -> npt.NDArray[np.int64]:
    """Sources of the copies in small groups: most have 2 or 3 samples, as on the web; the photos have the largest."""
    sizes = np.minimum(rng.geometric(0.4, n_copies), _MAX_GROUP - 1)
    n_groups = int(np.searchsorted(np.cumsum(sizes), n_copies)) + 1
    sizes[:n_groups] = np.sort(sizes[:n_groups])[::-1]
    heads = np.concatenate([np.arange(1, n_photos), n_photos + rng.permutation(n_sources - n_photos)])[:n_groups]
    return np.repeat(heads, sizes[:n_groups])[:n_copies]


def caption(rng: np.random.Generator, subject: str) -> str:
    """Write a caption in one line.

    `subject`: a photo's name or the kind of a procedural scene; other words are used as they are.

    Examples
    --------
    >>> caption(np.random.default_rng(3), "coffee")
    'Espresso in a red cup'
    """
    what = _pick(rng, _SUBJECTS.get(subject, (subject,)))
    prefix = _pick(rng, _PREFIXES)
    tail = _pick(rng, _TAILS)
    tail = tail.format(artist=_pick(rng, _ARTISTS), place=_pick(rng, _PLACES), year=rng.integers(1995, 2024), number=rng.integers(2, 500))
    title = f"{prefix}{what}{tail}"
    return title[0].upper() + title[1:]


def vary(rng: np.random.Generator, original: str, subject: str) -> str:
    """Write another page's caption of the same picture: in lower case, with additions, cut, or in other words."""
    way = int(rng.integers(7))
    if way == 0:
        return original.lower()
    if way == 1:
        return f"{original} {_pick(rng, ('- Etsy', '| eBay', '- Pinterest', '@ Shutterstock', '· Flickr'))}"
    if way == 2:
        return f"{_pick(rng, ('Image result for', 'Photo:', 'Picture of', 'RT'))} {original}"
    if way == 3:
        return " ".join(original.split()[: max(2, len(original.split()) // 2)])
    if way == 4:
        return f"IMG_{rng.integers(1000, 9999)}.jpg"
    return caption(rng, subject)


def _pick(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[int(rng.integers(len(words)))]


def pick_by_family(rng: np.random.Generator, pool: tuple[Change, ...]) -> Change:
    """Draw a change, its family first: crops have more strengths than grey, but should not be more common."""
    families = sorted({change.family for change in pool})
    family = families[int(rng.integers(len(families)))]
    members = [change for change in pool if change.family == family]
    return members[int(rng.integers(len(members)))]


def _break(name: str, pixels: Pixels) -> bytes:
    if name == "zero_bytes":
        return b""
    if name == "not_an_image":
        return _BAD_BYTES
    data = _encoded(pixels, "JPEG", quality=90)
    return data[: len(data) * 3 // 5]


def _to_area(pixels: Pixels) -> Pixels:
    """Resize to the area of `_SIZE`, with the same ratio of sides."""
    height, width, _ = pixels.shape
    scale = (_SIZE[0] * _SIZE[1] / (width * height)) ** 0.5
    if 0.98 < scale < 1.02:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def _encoded(pixels: Pixels, form: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def encode_to_size(pixels: Pixels, n_bytes: int, rng: np.random.Generator) -> bytes:
    """Encode a JPEG within 10% of a given size: by its quality, then with film grain where the best quality gives too few bytes."""
    low, high, data = _MIN_QUALITY, _MAX_QUALITY + 1, _encoded(pixels, "JPEG", quality=_MAX_QUALITY)
    if len(data) <= n_bytes * (1 + _TOLERANCE):
        low = _MAX_QUALITY
    while high - low > 1:  # the best quality that is not too large
        quality = (low + high) // 2
        data = _encoded(pixels, "JPEG", quality=quality)
        if abs(len(data) - n_bytes) <= _TOLERANCE * n_bytes:
            return data
        low, high = (quality, high) if len(data) < n_bytes else (low, quality)
    grain = rng.standard_normal((*pixels.shape[:2], 1), dtype=np.float32)
    weaker, stronger, deviation = 0.0, _MAX_GRAIN, 8.0
    for _ in range(16):  # size grows with the grain: bisect its logarithm
        if abs(len(data) - n_bytes) <= _TOLERANCE * n_bytes:
            break
        grained = np.clip(pixels + grain * np.float32(deviation) + np.float32(0.5), 0, 255).astype(np.uint8)
        data = _encoded(grained, "JPEG", quality=low)
        weaker, stronger = (deviation, stronger) if len(data) < n_bytes else (weaker, deviation)
        deviation = (max(weaker, 0.25) * stronger) ** 0.5
    return data
