"""The files of a folder and its subfolders: each once, however many links lead to it, and none that a run has written."""

from __future__ import annotations

import os
import posixpath
import stat
from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

from dedup.errors import InputError
from dedup.storage.input.beside import is_text
from dedup.storage.input.samples import one_line
from dedup.storage.urls import filesystem, is_local

SEEN: Final = "links to a file that is looked at already"
ELSEWHERE: Final = "files that another of the folders holds"
RUN_DIRECTORIES: Final = "run directories"
RUN_FILE: Final = "_config.json"  # that a run directory has from its first stage on, beside this folder
_RUN_FOLDER = "embeddings"


Inode = tuple[int, int]  # device and number of a local file


def files_below(folder: str, key: str, passed_over: Counter[str], known: set[Inode] | None = None) -> list[str]:
    """Relative paths of the files of a folder and its subfolders.

    `folder`: absolute path or URL, without a '/' at its end. Local links are followed, each folder is entered once.
    `key`: of the configuration, that names the folder.
    `passed_over`: gains what was not looked at, by reason: hidden folders, links seen before, and run directories below the folder, whose
    pictures and vectors are made from others.
    `known`: local files that other folders have led to, which are passed over; gains those of this one.
    Raises InputError if there is no such folder, or it can't be listed.
    """
    if is_local(folder):
        if not os.path.isdir(folder):
            kind = "images, for tars use input.shards" if key == "input.images" else "arrays and tables"
            found = "is not a folder" if os.path.exists(folder) else "does not exist"
            raise InputError(f"{key}={folder} {found}; expected a folder of {kind}: check the path")
        return _Walk(folder, passed_over, known).files()
    try:
        files, path = filesystem(folder)
        names = [posixpath.relpath(name, path) for name in files.find(path)]
    except Exception as error:  # each file system has its own
        raise InputError(f"{key}={folder} can't be listed ({one_line(error)}); check address and credentials") from error
    return _without_runs(names, passed_over)


def is_run_directory(folder: str) -> bool:
    """Whether a local folder is one that a run has written."""
    return os.path.isfile(os.path.join(folder, RUN_FILE)) and os.path.isdir(os.path.join(folder, _RUN_FOLDER))


def _without_runs(names: Iterable[str], passed_over: Counter[str]) -> list[str]:
    """The files that are in no run directory."""
    every = list(names)
    folders = {posixpath.dirname(name) for name in every if posixpath.basename(name) == RUN_FILE} - {""}
    folders = {folder for folder in folders if any(name.startswith(f"{folder}/{_RUN_FOLDER}/") for name in every)}
    if not folders:
        return every
    outermost = {folder for folder in folders if not any(folder.startswith(f"{other}/") for other in folders)}
    passed_over[RUN_DIRECTORIES] += len(outermost)
    prefixes = tuple(f"{folder}/" for folder in outermost)
    return [name for name in every if not name.startswith(prefixes)]


class _Walk:
    """A walk through a local folder that follows links and enters each folder once, by its real name if it has one here."""

    def __init__(self, folder: str, passed_over: Counter[str], known: set[Inode] | None) -> None:
        self._passed_over, self._known = passed_over, known
        self._to_enter = deque([(folder, "", False)])  # path, relative path with a '/', whether a link leads to it
        self._entered: set[tuple[int, int]] = set()
        # of each file: whether a link leads to it, relative path; texts may be shared by images, so each of their names counts
        self._names: dict[tuple[int, int, str], tuple[bool, str]] = {}

    def files(self) -> list[str]:
        """Relative paths of all files."""
        while self._to_enter:
            self._enter(*self._to_enter.popleft())
        if self._known is not None:
            self._known.update((device, number) for device, number, text in self._names if not text)
        return [name for _, name in self._names.values()]

    def _enter(self, folder: str, prefix: str, is_linked: bool) -> None:
        if prefix and is_run_directory(folder):
            self._passed_over[RUN_DIRECTORIES] += 1
            return
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
            is_known = self._known is not None and place[:2] in self._known
            if is_known:
                self._passed_over[ELSEWHERE] += 1
            elif place in self._names:
                self._passed_over[SEEN] += 1
            if not is_known:
                self._names[place] = min(self._names.get(place, (is_linked, name)), (is_linked, name))
        else:
            self._passed_over["pipes, sockets and devices"] += 1
