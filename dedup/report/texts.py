"""Texts as a report shows them. They come from the web: what is here cuts them, the template escapes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from dedup.report.queries import CAPTION_CHARACTERS, URL_CHARACTERS

_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
_SPACES = re.compile(r"\s+")
_JOINERS = "\u200d\ufe0e\ufe0f"
_KEY_CHARACTERS = 120


@dataclass(frozen=True)
class Text:
    """A text as it is shown, and how long it is if it was cut.

    Parameters
    ----------
    shown : str
    n_characters : int
        0 = it is shown whole.
    """

    shown: str
    n_characters: int = 0


def cut(text: str | None, n_characters: int | None = None, most: int = CAPTION_CHARACTERS) -> Text | None:
    r"""A text of one line without control characters, cut to `most` characters; None where there is none.

    Parameters
    ----------
    text : str or None
        Perhaps the beginning alone.
    n_characters : int or None
        Of the whole text.
    most : int

    Examples
    --------
    >>> cut("a\n b\x07", 4), cut("abcdef", 100_000, 3), cut(None)
    (Text(shown='a b\ufffd', n_characters=0), Text(shown='abc…', n_characters=100000), None)
    """
    if text is None:
        return None
    whole = len(text) if n_characters is None else n_characters
    is_cut = whole > most
    # a cut between an emoji and what belongs to it would show a half
    begun = text[:most].rstrip(_JOINERS) + "…" if is_cut else text
    return Text(_SPACES.sub(" ", _CONTROLS.sub("\ufffd", begun)).strip(), whole if is_cut else 0)


def shown(text: str, most: int = CAPTION_CHARACTERS) -> str:
    """What `cut` shows of a text."""
    found = cut(text, most=most)
    return "" if found is None else found.shown


def link(url: str | None) -> str:
    """The url if a click on it may be offered, else ''.

    Examples
    --------
    >>> link("https://example.org/a b.jpg"), link("javascript:alert(1)"), link("https://[")
    ('https://example.org/a%20b.jpg', '', '')
    """
    url = (url or "").strip()
    if not url or len(url) > URL_CHARACTERS or _CONTROLS.search(url):
        return ""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        return ""
    return _SPACES.sub("%20", url)


def key_text(key: str) -> Text:
    """A sample's key, cut."""
    return cut(key, most=_KEY_CHARACTERS) or Text("")


def shard_name(shard: str) -> str:
    """Last part of a shard's URL: folders and credentials of the URL stay out of a page that is passed on.

    Examples
    --------
    >>> shard_name("https://host/a/00000.tar?token=1"), shard_name("/data/pictures/"), shard_name("/data/pictures/#00001")
    ('00000.tar', 'pictures/', 'pictures/#00001')
    """
    path = shard.partition("?")[0] if "://" in shard else shard
    folder, mark, part = path.partition("/#")
    tail = "/" if path.endswith("/") or mark else ""
    name = folder.rstrip("/").rpartition("/")[2] + tail + (f"#{part}" if mark else "")
    return shown(name, _KEY_CHARACTERS)
