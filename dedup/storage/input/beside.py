"""Which text files of a folder belong to which images."""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Iterable, Sequence

from dedup.storage.input.captions import text_suffix
from dedup.storage.input.samples import file_suffix


def texts_beside(images: Sequence[str], texts: Iterable[str]) -> list[tuple[str, ...]]:
    """The text files of each image: those in its folder whose name is the image's, with or without the image's suffix, and their own.

    `images`, `texts`: relative paths. ``x.jpg`` has ``x.txt``, ``x.TXT``, ``x.jpg.txt``, ``x.json``, and ``x.en.txt`` unless there is an
    image ``x.en.jpg``. A file belongs to all images of its name.
    Returns the files of each image, sorted.

    Examples
    --------
    >>> texts_beside(["a/x.jpg", "a/x.v2.png", "y.jpg"], ["a/x.jpg.txt", "a/x.v2.txt", "a/y.txt", "y.CAPTION"])
    [('a/x.jpg.txt',), ('a/x.v2.txt',), ('y.CAPTION',)]
    """
    places: dict[str, list[int]] = {}
    for place, image in enumerate(images):
        name = _comparable(image)
        for spelling in (name, posixpath.splitext(name)[0]):
            places.setdefault(spelling, []).append(place)
    found: list[list[str]] = [[] for _ in images]
    for text in sorted(texts):
        folder, slash, name = _comparable(text).rpartition("/")
        while "." in name[1:]:
            name = name.rpartition(".")[0]
            if owners := places.get(folder + slash + name):
                for place in owners:
                    found[place].append(text)
                break
    return [tuple(names) for names in found]


def is_text(name: str) -> bool:
    """Whether a file may hold the captions of an image beside it."""
    return text_suffix(file_suffix(name))


def names_exactly(image: str, text: str) -> bool:
    """Whether a text file has the whole name of an image, its suffix included: no other image's caption is in it.

    >>> names_exactly("a/x.jpg", "a/x.jpg.txt"), names_exactly("a/x.jpg", "a/x.txt")
    (True, False)
    """
    return _comparable(text).rpartition(".")[0] == _comparable(image)


def suffix_of(image: str, text: str) -> str:
    """The suffix of an image's text file: what follows the image's name without its suffix.

    Examples
    --------
    >>> suffix_of("a/x.jpg", "a/x.TXT"), suffix_of("a/x.jpg", "a/x.jpg.txt")
    ('txt', 'jpg.txt')
    """
    own = len(posixpath.splitext(_comparable(image))[0])
    return _comparable(text)[own + 1 :].lower()


def _comparable(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)
