"""The files of `quality.py`: photos as JPEGs, and planted copies of some of them; written once, read by every tool."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from dedup.errors import SampleError
from dedup.machine import available_cores
from dedup.numerics.graph.components import connected_components
from dedup.numerics.image.planting import CHANGES, Pixels, plant
from dedup.storage.images.decode import decode_image

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
_MAX_PIXELS = 178_956_970


@dataclasses.dataclass(frozen=True)
class Design:
    """What every tool is given: one batch per change, of all photos and one copy of each original.

    Attributes
    ----------
    folder : Path
        Holds ``base/<photo>.jpg`` and ``<change>/<original>.jpg``; a photo's number is its place in `photos`.
    photos : tuple of str
        Names of the source files, the originals first, then the negatives.
    identity : int64 array, shape (n_photos,)
        Photos with equal numbers show one picture: equal bytes, or listed in --known-pairs.
    n_originals : int
    changes : tuple of str
    """

    folder: Path
    photos: tuple[str, ...]
    identity: npt.NDArray[np.int64]
    n_originals: int
    changes: tuple[str, ...]

    @property
    def n_photos(self) -> int:
        """Originals and negatives."""
        return len(self.photos)

    @property
    def batch_identity(self) -> npt.NDArray[np.int64]:
        """Identity of every file of a batch: the photos, then the copies in the order of the originals."""
        return np.concatenate([self.identity, self.identity[: self.n_originals]])

    def base_file(self, photo: int) -> Path:
        """The file of a photo."""
        return self.folder / "base" / f"{photo:06d}.jpg"

    def copy_file(self, change: str, original: int) -> Path:
        """The file of a copy."""
        return self.folder / change / f"{original:06d}.jpg"

    def batch(self, change: str) -> list[Path]:
        """Files of a batch, in the order of `batch_identity`."""
        photos = [self.base_file(photo) for photo in range(self.n_photos)]
        return photos + [self.copy_file(change, original) for original in range(self.n_originals)]


def list_images(folder: Path) -> list[Path]:
    """Images in a folder and its subfolders, by path."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())


def make_files(
    out: Path,
    photos: Path,
    negatives: Path | None,
    changes: Sequence[str],
    *,
    n_originals: int,
    max_side: int,
    seed: int,
    known_pairs: Path | None = None,
) -> Design:
    """Choose originals, plant the changes, write all files; files of an earlier call with the same arguments are reused.

    Photos are written as JPEG q95 without chroma subsampling, EXIF orientation applied, so that no tool's own way of
    reading a format matters. Photos that do not decode are left out.
    """
    rng = np.random.default_rng(seed)
    found = list_images(photos)
    sources = [found[k] for k in rng.permutation(len(found))]
    names = [path.relative_to(photos).as_posix() for path in sources]
    if negatives is not None:
        more = list_images(negatives)
        sources, names = sources + more, names + [path.relative_to(negatives).as_posix() for path in more]
    stamps = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in sources]
    asked = json.loads(json.dumps({"sources": stamps, "changes": list(changes), "n": n_originals, "max_side": max_side, "seed": seed}))
    folder, record = out / "files", out / "files.json"
    kept = json.loads(record.read_text()) if record.exists() else {}
    if kept.get("asked") != asked:
        if folder.exists():
            raise SystemExit(f"{folder} holds the files of another run; remove it or give another --out")
        kept = {"asked": asked} | _write_all(folder, sources, changes, n_originals, max_side, seed)
        record.write_text(json.dumps(kept))
    readable = kept["readable"]
    picked = tuple(names[k] for k in readable)
    first = {digest: number for number, digest in reversed(list(enumerate(kept["digests"])))}
    pairs = [(number, first[digest]) for number, digest in enumerate(kept["digests"])] + read_known_pairs(known_pairs, picked)
    src, dst = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return Design(folder, picked, connected_components(src, dst, len(picked)), kept["n_originals"], tuple(changes))


def read_known_pairs(path: Path | None, names: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of numbers of photos that show one picture, from a CSV of two photo names per line: paths or bare names, others are an error."""
    if path is None:
        return []
    number = {Path(name).name: k for k, name in enumerate(names)} | {name: k for k, name in enumerate(names)}
    with path.open(newline="") as lines:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if row and not row[0].startswith("#")]
    rows = [row for row in rows if row != ["a", "b"]]
    wrong = [row for row in rows if len(row) != 2 or any(name not in number for name in row)]
    if wrong:
        raise SystemExit(f"{path}: expected two names of photos in a line, found {','.join(wrong[0])}")
    return [(number[a], number[b]) for a, b in rows]


def _write_all(folder: Path, sources: list[Path], changes: Sequence[str], n_originals: int, max_side: int, seed: int) -> dict[str, object]:
    for name in ("base", *changes):
        (folder / name).mkdir(parents=True)
    with ProcessPoolExecutor(available_cores(), mp_context=multiprocessing.get_context("spawn")) as pool:
        digests = list(pool.map(_digest, sources, chunksize=64))
        readable = [k for k, digest in enumerate(digests) if digest is not None]
        write = partial(_write_photo, max_side=max_side)
        list(
            pool.map(write, [sources[k] for k in readable], [folder / "base" / f"{n:06d}.jpg" for n in range(len(readable))], chunksize=16)
        )
        n = min(n_originals, len(readable))
        copy = partial(_write_copies, folder=folder, changes=tuple(changes), max_side=max_side, seed=seed)
        list(pool.map(copy, [sources[k] for k in readable[:n]], range(n)))
    return {"readable": readable, "digests": [digests[k] for k in readable], "n_originals": n}


def _read(path: Path, max_side: int) -> Pixels:
    pixels = decode_image(path.read_bytes(), max_pixels=_MAX_PIXELS).pixels
    image = Image.fromarray(pixels)
    scale = max_side / max(image.size)
    if scale < 1:
        pixels = np.array(image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS))
    return pixels


def _digest(path: Path) -> str | None:
    data = path.read_bytes()
    try:
        decode_image(data, max_pixels=_MAX_PIXELS, min_side=64)
    except SampleError:
        return None
    return hashlib.sha256(data).hexdigest()


def _save(pixels: Pixels, path: Path) -> None:
    Image.fromarray(pixels).save(path, "JPEG", quality=95, subsampling=0)


def _write_photo(source: Path, target: Path, max_side: int) -> None:
    _save(_read(source, max_side), target)


def _write_copies(source: Path, original: int, *, folder: Path, changes: tuple[str, ...], max_side: int, seed: int) -> None:
    pixels = _read(source, max_side)
    # seeded by a change's place in the whole list, so a selection of changes plants the same copies
    place = {change.name: k for k, change in enumerate(CHANGES)}
    for name in changes:
        _save(plant(pixels, name, np.random.default_rng([seed, original, place[name]])), folder / name / f"{original:06d}.jpg")
