"""What paths hold: photos, tars, files of rows, published embeddings; as the settings that read them."""

from __future__ import annotations

import glob
import posixpath
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dedup.errors import ConfigError, InputError
from dedup.storage.input.row_files import is_row_file
from dedup.storage.input.row_images import holds_images
from dedup.storage.input.row_tables import LANCE, outermost
from dedup.storage.input.rows import TAR_ENDINGS, without_ending
from dedup.storage.input.samples import IMAGE_SUFFIXES, file_suffix, may_be_image
from dedup.storage.input.walk import RUN_DIRECTORIES, files_below, is_run_directory
from dedup.storage.urls import absolute, filesystem, is_local

_ARRAYS: Final = (".npy", ".npz", LANCE)
_GLOBS: Final = "*?[{"
_KEYS: Final = {"shards": "input.shards", "images": "input.images", "embeddings": "input.embeddings"}
_NOUNS: Final = {  # of one, of several
    "tars": ("tar", "tars"),
    "rows": ("parquet or Arrow file with images", "parquet or Arrow files with images"),
    "arrays": ("file of embeddings", "files of embeddings"),
    "images": ("image", "images"),
    "unknown": ("file that may be an image", "files that may be images"),
}


@dataclass(frozen=True)
class Recognised:
    """What some paths hold."""

    overrides: tuple[str, ...]  # ``key=value`` of the configuration
    said: tuple[str, ...]  # for each path, what was found
    name: str  # of the first path, without folder and ending


def recognise(paths: Sequence[str]) -> Recognised:
    """The settings that read some paths.

    `paths`: at least one; each a folder, a tar, a parquet or Arrow file, a glob or brace range of these, or ``@list.txt``; paths or URLs.
    Raises ConfigError if they can't be read by one run: unlike kinds, or several folders of embeddings.
    Raises InputError if one does not exist, or holds nothing to read.
    """
    found = [_look_at(path) for path in paths]
    kinds = {kind for kind, _, _ in found}
    if len(kinds) > 1:
        each = "; ".join(f"{path} holds {said}" for path, (_, _, said) in zip(paths, found, strict=True))
        raise ConfigError(f"{each}; one run reads one kind: give the others to a run of their own")
    kind = kinds.pop()
    if kind == "embeddings" and len(found) > 1:
        raise ConfigError(f"{paths[0]} and {paths[1]} are two folders of {kind}; give the folder that holds both (links to both will do)")
    overrides = [f"{_KEYS[kind]}={value}" for _, values, _ in found for value in values]
    overrides += ["encoder.name=precomputed"] if kind == "embeddings" else []
    first = absolute(paths[0].lstrip("@")).rstrip("/")
    while any(sign in posixpath.basename(first) for sign in _GLOBS):
        first = posixpath.dirname(first)
    return Recognised(tuple(overrides), tuple(said for _, _, said in found), without_ending(posixpath.basename(first)) or "dataset")


def _look_at(path: str) -> tuple[str, list[str], str]:
    """Kind of input, values of its key, and what was found."""
    place = absolute(path.lstrip("@")).rstrip("/")
    if path.startswith("@"):
        return "shards", [path], "a list of shards"
    fs, inner = filesystem(place)
    if fs.isdir(inner):
        return _look_into(path, place)
    if not fs.exists(inner):
        if any(sign in path for sign in _GLOBS):
            return "shards", [path], "shards that match"
        raise InputError(f"{path} does not exist; expected a folder, a tar, a parquet file, a glob, or a setting KEY=VALUE; check the path")
    if place.endswith(TAR_ENDINGS) or is_row_file(place):
        if not place.endswith(TAR_ENDINGS) and not holds_images(place):
            raise InputError(f"{path} has no column of images; embeddings are given as the folder that holds them")
        return "shards", [path], "a shard"
    folder = posixpath.dirname(path) or "."
    if file_suffix(path) in IMAGE_SUFFIXES or place.endswith(_ARRAYS):
        raise InputError(f"{path} is one file; give the folder that holds it and the others: {folder}")
    raise InputError(f"{path} is no tar, parquet or Arrow file; a list of shards is given as @{path}, photos as their folder")


def _look_into(path: str, folder: str) -> tuple[str, list[str], str]:
    if is_local(folder) and is_run_directory(folder):
        raise InputError(f"{path} is a run directory; see `dedup status {path}`, or give the data it was made from")
    passed_over: Counter[str] = Counter()
    if folder.endswith(LANCE):
        return "embeddings", [path], "a data set of Lance"
    files = dict.fromkeys(map(outermost, files_below(folder, "the path", passed_over)))
    names = [name for name in files if not posixpath.basename(name).startswith(("_", "."))]
    of_kind = {
        "tars": [name for name in names if name.endswith(TAR_ENDINGS)],
        "rows": [name for name in names if is_row_file(name)],
        "arrays": [name for name in names if name.endswith(_ARRAYS)],
        "images": [name for name in names if file_suffix(name) in IMAGE_SUFFIXES],
    }
    # tables of metadata lie beside tars and arrays; those alone may hold images
    has_rows = bool(of_kind["rows"]) and holds_images(f"{folder}/{min(of_kind['rows'])}")
    data = [kind for kind in ("tars", "arrays", "images") if of_kind[kind]] + (["rows"] if has_rows else [])
    if len(data) > 1:
        held = " and ".join(f"{len(of_kind[kind]):,} {_NOUNS[kind][len(of_kind[kind]) > 1]}" for kind in data)
        base = path.rstrip("/")
        ways = {"tars": f"input.shards='{base}/**/*.tar*'", "rows": f"input.shards='{base}/**/*.parquet'", "images": f"input.images={path}"}
        ways["arrays"] = f"input.embeddings={path} encoder.name=precomputed"
        raise ConfigError(f"{path} holds {held}; say which to read: {' or '.join(ways[kind] for kind in data)}")
    if data and data[0] in ("tars", "rows"):
        kind = data[0]
        return "shards", _patterns(path, of_kind[kind], TAR_ENDINGS if kind == "tars" else ()), _said(of_kind[kind], kind)
    if data == ["arrays"] or (not data and of_kind["rows"]):
        return "embeddings", [path], _said(of_kind["arrays"] or of_kind["rows"], "arrays")
    if data or any(may_be_image(file_suffix(name)) for name in names):
        return "images", [path], _said(of_kind["images"] or names, "images" if data else "unknown")
    suffixes = Counter(f".{file_suffix(name)}" for name in names)
    held = ", ".join(f"{count:,} {suffix}" for suffix, count in suffixes.most_common(4)) or "no file"
    held += f" beside {passed_over[RUN_DIRECTORIES]} run directories" if passed_over[RUN_DIRECTORIES] else ""
    raise InputError(f"{path} holds {held}; expected photos, webdataset tars, parquet or Arrow files with images, or published embeddings")


def _patterns(path: str, names: Sequence[str], endings: Sequence[str]) -> list[str]:
    """Globs for files of a folder, one for each of their endings."""
    depth = "**/" if any("/" in name for name in names) else ""
    found = Counter(next((ending for ending in endings if name.endswith(ending)), posixpath.splitext(name)[1]) for name in names)
    base = glob.escape(path.rstrip("/")) if is_local(absolute(path)) else path.rstrip("/")
    return [f"{base or '/'}/{depth}*{ending}" for ending in sorted(found)]


def _said(names: Sequence[str], kind: str) -> str:
    suffixes = Counter(f".{file_suffix(name)}" for name in names)
    folders = len({posixpath.dirname(name) for name in names})
    kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in suffixes.most_common(4)) + (", …" if len(suffixes) > 4 else "")
    return f"{len(names):,} {_NOUNS[kind][len(names) > 1]} ({kinds})" + (f" in {folders:,} folders" if folders > 1 else "")
