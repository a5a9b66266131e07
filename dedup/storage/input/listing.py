"""The files of a folder that may be images: each once, however many links lead to it."""

from __future__ import annotations

import os
import posixpath
import stat
from collections import Counter, deque

from dedup.errors import InputError
from dedup.storage.input.beside import is_text
from dedup.storage.input.samples import IMAGE_SUFFIXES, file_suffix, may_be_image, one_line
from dedup.storage.urls import filesystem, is_local


def list_images(folder: str) -> tuple[list[str], list[str], Counter[str]]:
    """Find the files of a folder and its subfolders that may be images, and those that may hold their captions.

    `folder`: absolute path or URL, without a '/' at its end.
    Returns relative paths of both, sorted, and how many other files there are, by reason.
    Raises InputError if there is no such folder, or it can't be listed.
    """
    passed_over: Counter[str] = Counter()
    images, texts = [], []
    for name in _files(folder, passed_over):
        suffix = file_suffix(name)
        if "/." in "/" + name:
            passed_over["hidden files"] += 1
        elif suffix in IMAGE_SUFFIXES or may_be_image(suffix):
            images.append(name)
        elif is_text(name):
            texts.append(name)
        else:
            passed_over[f"files .{suffix}"] += 1
    return sorted(images), sorted(texts), passed_over


def _files(folder: str, passed_over: Counter[str]) -> list[str]:
    if is_local(folder):
        if not os.path.isdir(folder):
            raise InputError(f"input.images={folder} is not a folder; expected a folder of images, for tars use input.shards")
        return _Walk(folder, passed_over).files()
    try:
        files, path = filesystem(folder)
        return [posixpath.relpath(name, path) for name in files.find(path)]
    except Exception as error:  # each file system has its own
        raise InputError(f"input.images={folder} can't be listed ({one_line(error)}); check address and credentials") from error


class _Walk:
    """A walk through a local folder that follows links and enters each folder once, by its real name if it has one here."""

    def __init__(self, folder: str, passed_over: Counter[str]) -> None:
        self._passed_over = passed_over
        self._to_enter = deque([(folder, "", False)])  # path, relative path with a '/', whether a link leads to it
        self._entered: set[tuple[int, int]] = set()
        # of each file: whether a link leads to it, relative path; texts may be shared by images, so each of their names counts
        self._names: dict[tuple[int, int, str], tuple[bool, str]] = {}

    def files(self) -> list[str]:
        """Relative paths of all files."""
        while self._to_enter:
            self._enter(*self._to_enter.popleft())
        return [name for _, name in self._names.values()]

    def _enter(self, folder: str, prefix: str, is_linked: bool) -> None:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in self._entered:
            self._passed_over["links to a folder that is looked at already"] += 1
            return
        self._entered.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            for entry in entries:
                self._take(entry, prefix + entry.name, is_linked=is_linked or entry.is_symlink())

    def _take(self, entry: os.DirEntry[str], name: str, *, is_linked: bool) -> None:
        try:
            status = entry.stat()
        except OSError:
            self._passed_over["broken links"] += 1
            return
        if stat.S_ISDIR(status.st_mode):
            if entry.name.startswith("."):
                self._passed_over["hidden folders"] += 1
            elif is_linked:
                self._to_enter.append((entry.path, name + "/", True))
            else:  # before what links lead to
                self._to_enter.appendleft((entry.path, name + "/", False))
        elif stat.S_ISREG(status.st_mode):
            place = status.st_dev, status.st_ino, name if is_text(name) else ""
            if place in self._names:
                self._passed_over["links to a file that is looked at already"] += 1
            self._names[place] = min(self._names.get(place, (is_linked, name)), (is_linked, name))
