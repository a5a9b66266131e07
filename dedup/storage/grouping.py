"""Which members of a tar make a sample: webdataset's rule, and what happens where it is broken."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from dedup.storage.captions import clean_name

_META: Final = re.compile(r"__[^/]*__($|/)")  # webdataset's own rule


class Member(NamedTuple):
    """What a member's name says.

    Parameters
    ----------
    key : str
        The name up to the first dot of its base name, folder included, as valid UTF-8.
    suffix : str
        What follows, in lower case; '' where there is none, and the member belongs to no sample.
    problem : str
        Why it belongs to none.
    """

    key: str
    suffix: str
    problem: str = ""


def parse_name(name: str) -> Member | None:
    """Split the name of a member; None for webdataset's meta members, such as ``__info__.json``.

    Examples
    --------
    >>> parse_name("a.b/000.seg.PNG")
    Member(key='a.b/000', suffix='seg.png', problem='')
    >>> parse_name("folder/.hidden").problem
    'a hidden file'
    """
    if name.startswith("__") and _META.match(name):
        return None
    base = name.rfind("/") + 1
    dot = name.find(".", base)
    if dot <= base:
        return Member(clean_name(name), "", "the name has no suffix" if dot < 0 else "a hidden file")
    return Member(clean_name(name[:dot]), name[dot + 1 :].lower())


class Grouping:
    """Tells where one sample ends and the next begins, as the members of a tar come.

    Notes
    -----
    Consecutive members with one key are one sample; a suffix that occurs twice begins another sample of that key. Of samples with
    one key the first stays.
    """

    def __init__(self) -> None:
        self._key: str | None = None
        self._suffixes: set[str] = set()
        self._seen: set[str] = set()

    def begins(self, member: Member) -> bool:
        """Whether a member is the first of a sample; to be asked once of each."""
        is_new = member.key != self._key or member.suffix in self._suffixes
        if is_new:
            self.is_duplicate = member.key in self._seen
            self._key, self._suffixes = member.key, set()
            self._seen.add(member.key)
        self._suffixes.add(member.suffix)
        return is_new

    is_duplicate = False
    """Whether a sample with the same key came before the one that the last member belongs to."""
