"""The images somebody asks about: files, folders and tars."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dedup.errors import InputError, SampleError
from dedup.storage.input.samples import IMAGE_SUFFIXES, UNSUPPORTED_SUFFIXES, file_suffix, one_line
from dedup.storage.input.shards import read_shard
from dedup.storage.input.sources import expand_shards
from dedup.storage.urls import filesystem, is_local, local_path, open_binary

_TARS = (".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class Asked:
    """One image somebody asks about."""

    name: str  # its path; of a tar's member the tar's, a colon and the key
    data: bytes = b""  # bytes
    error: SampleError | None = None  # why there are no bytes
    # shard, key: the tar, or the folder with a slash; the key, or the file's name
    shard: str = ""
    key: str = ""


def find_inputs(paths: Sequence[str]) -> list[str]:
    """The files and tars behind paths: a folder gives the images and tars in it and its subfolders.

    Raises InputError if a path does not exist, or a folder holds neither.
    """
    found: list[str] = []
    for path in paths:
        if _is_folder(path):
            known = [name for name in _inside(path) if _is_image(name) or name.endswith(_TARS)]
            if not known:
                raise InputError(f"{path} holds no images; expected files such as .jpg, .png, .webp, or .tar")
            found += known
        elif path.endswith(_TARS):
            found += expand_shards([path])
        elif is_local(path) and not os.path.isfile(local_path(path)):
            raise InputError(f"{path} does not exist; expected an image, a folder of images, or a tar")
        else:
            found.append(path)
    return found


def read_inputs(paths: Sequence[str], *, max_image_bytes: int) -> Iterator[Asked]:
    """The images of files and tars, one after another; what can't be read comes with the reason."""
    for path in paths:
        if path.endswith(_TARS):
            reader = read_shard(path, max_image_bytes=max_image_bytes)
            for sample in reader:
                name = f"{path}:{sample.key}"
                if sample.image is None:
                    error = sample.error or SampleError("no_image", "the sample has no image")
                    yield Asked(name, error=error, shard=path, key=sample.key)
                else:
                    yield Asked(name, sample.image, shard=path, key=sample.key)
            if reader.status != "ok":
                yield Asked(path, error=SampleError("undecodable_image", f"the tar is {reader.status}: {reader.error}"))
            continue
        try:
            with open_binary(path) as file:
                data = file.read(max_image_bytes + 1)
        except Exception as error:  # each file system has its own
            yield Asked(path, error=SampleError("undecodable_image", f"it can't be read ({one_line(error)})"))
            continue
        folder, slash, name = path.rpartition("/")
        yield Asked(path, data, shard=folder + slash, key=name)


def _is_folder(path: str) -> bool:
    if is_local(path):
        return os.path.isdir(local_path(path))
    if path.endswith(_TARS) or _is_image(path):
        return False
    fs, inside = filesystem(path)
    return bool(fs.isdir(inside))


def _inside(path: str) -> list[str]:
    """All files of a folder and its subfolders, in order."""
    if is_local(path):
        return [os.path.join(folder, name) for folder, _, names in sorted(os.walk(local_path(path))) for name in sorted(names)]
    fs, inside = filesystem(path)
    return [str(fs.unstrip_protocol(name)) for name in sorted(fs.find(inside))]


def _is_image(name: str) -> bool:
    return file_suffix(os.path.basename(name)) in IMAGE_SUFFIXES | UNSUPPORTED_SUFFIXES
