"""The files of a folder that may be images, or say something of them: each once, however many links lead to it."""

from __future__ import annotations

import posixpath
from collections import Counter
from dataclasses import dataclass, field

from dedup.storage.input.beside import is_text
from dedup.storage.input.folder_tables import OWN_TABLES
from dedup.storage.input.samples import IMAGE_SUFFIXES, file_suffix, may_be_image
from dedup.storage.input.walk import Inode, files_below


@dataclass
class Listing:
    """Relative paths of the files of a folder, sorted."""

    images: list[str] = field(default_factory=list)  # files that may be images
    texts: list[str] = field(default_factory=list)  # that may hold the captions of one
    tables: list[str] = field(default_factory=list)  # called as `datasets` calls the table of an image folder
    passed_over: Counter[str] = field(default_factory=Counter)  # how many others there are, by reason


def list_files(folder: str, known: set[Inode] | None) -> Listing:
    """Find the files of a folder and its subfolders.

    `folder`: absolute path or URL, without a '/' at its end.
    `known`: see `files_below`.
    Raises InputError if there is no such folder, or it can't be listed.
    """
    found = Listing()
    for name in sorted(files_below(folder, "input.images", found.passed_over, known)):
        suffix = file_suffix(name)
        if "/." in "/" + name:
            found.passed_over["hidden files"] += 1
        elif suffix in IMAGE_SUFFIXES or may_be_image(suffix):
            found.images.append(name)
        elif posixpath.basename(name) in OWN_TABLES:
            found.tables.append(name)
        elif is_text(name):
            found.texts.append(name)
        else:
            found.passed_over[f"files .{suffix}"] += 1
    return found
