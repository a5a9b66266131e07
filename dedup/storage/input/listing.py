"""The files of a folder that may be images: each once, however many links lead to it."""

from __future__ import annotations

from collections import Counter

from dedup.storage.input.beside import is_text
from dedup.storage.input.samples import IMAGE_SUFFIXES, file_suffix, may_be_image
from dedup.storage.input.walk import files_below


def list_images(folder: str) -> tuple[list[str], list[str], Counter[str]]:
    """Find the files of a folder and its subfolders that may be images, and those that may hold their captions.

    `folder`: absolute path or URL, without a '/' at its end.
    Returns relative paths of both, sorted, and how many other files there are, by reason.
    Raises InputError if there is no such folder, or it can't be listed.
    """
    passed_over: Counter[str] = Counter()
    images, texts = [], []
    for name in files_below(folder, "input.images", passed_over):
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
