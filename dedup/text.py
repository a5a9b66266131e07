"""Texts and numbers for display. Texts come from the web, so they are cut and cleaned for a terminal or a page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from rich.filesize import decimal

# credentials in URLs: user and password, and the signatures of S3, GCS, Azure, CloudFront and others
_LOGIN: Final = re.compile(r"://[^\s/@'\"]*:[^\s/@'\"]*@")

_SIGNED: Final = re.compile(
    r"([?&](?:x-(?:amz|goog)-(?:signature|credential|security-token)|awsaccesskeyid|googleaccessid|signature|sig|(?:access_|auth_)?token|key-pair-id|"
    r"policy|api_?key|key|password|secret)=)[^\s&'\")\]]+",
    re.IGNORECASE,
)

CAPTION_CHARACTERS: Final = 300
URL_CHARACTERS: Final = 1000
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
_SPACES = re.compile(r"\s+")
_JOINERS = "\u200d\ufe0e\ufe0f"
_KEY_CHARACTERS = 120


@dataclass(frozen=True)
class Text:
    """A text for display, and its length if it was cut."""

    shown: str
    n_characters: int = 0  # of the whole text; 0 = it was not cut


def printable(text: str, max_chars: int = 0) -> str:
    r"""A text from the data as one line that is safe for a terminal.

    Control characters, escape sequences and marks that change the direction of writing are removed, and, since logs are passed on,
    credentials in URLs.

    `max_chars`: most characters, the last an ellipsis if there are more; 0 = all.

    Examples
    --------
    >>> printable("a\x1b[31mb\n\u202ec")
    'a[31mb c'
    >>> printable("abcdef", max_chars=4)
    'abc…'
    >>> printable("https://me:secret@host/a.tar?sig=abc&part=1")
    'https://…@host/a.tar?sig=…&part=1'
    """
    if max_chars:
        text = text[: 8 * max_chars + 64]  # a caption may have megabytes
    if "://" in text:
        text = _SIGNED.sub(r"\1…", _LOGIN.sub("://…@", text))
    line = " ".join("".join(letter if letter.isprintable() or letter.isspace() else "" for letter in text).split())
    return f"{line[: max_chars - 1]}…" if 0 < max_chars < len(line) else line


def cut(text: str | None, n_characters: int | None = None, most: int = CAPTION_CHARACTERS) -> Text | None:
    r"""A text as one line without control characters, cut to `most` characters; None for None.

    `n_characters`: of the whole text, if `text` is only its beginning.

    Examples
    --------
    >>> cut("a\n b\x07", 4), cut("abcdef", 100_000, 3), cut(None)
    (Text(shown='a b\ufffd', n_characters=0), Text(shown='abc…', n_characters=100000), None)
    """
    if text is None:
        return None
    n_characters = len(text) if n_characters is None else n_characters
    is_cut = n_characters > most
    # a cut inside an emoji sequence would leave a joiner at the end
    line = text[:most].rstrip(_JOINERS) + "…" if is_cut else text
    return Text(_SPACES.sub(" ", _CONTROLS.sub("\ufffd", line)).strip(), n_characters if is_cut else 0)


def shown(text: str, most: int = CAPTION_CHARACTERS) -> str:
    """The text that `cut` shows."""
    shortened = cut(text, most=most)
    return "" if shortened is None else shortened.shown


def key_text(key: str) -> Text:
    """A sample's key, cut."""
    return cut(key, most=_KEY_CHARACTERS) or Text("")


def link(url: str | None) -> str:
    """The url if it is safe to link to, otherwise ''.

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


def shard_name(shard: str) -> str:
    """Last part of a shard's URL, without folders and credentials: pages are passed on.

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


def counted(n: int, noun: str) -> str:
    """A number of things, named by a noun whose plural ends in s.

    Examples
    --------
    >>> counted(1, "shard"), counted(2429, "shard"), counted(0, "shard")
    ('1 shard', '2,429 shards', '0 shards')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def times_text(n: int) -> str:
    """How often something occurs.

    Examples
    --------
    >>> times_text(1), times_text(1200)
    ('once', '1,200 times')
    """
    return "once" if n == 1 else f"{n:,} times"


def bytes_text(n_bytes: float) -> str:
    """A size, with units of powers of 1,000.

    Examples
    --------
    >>> bytes_text(999), bytes_text(12_345), bytes_text(3_400_000), bytes_text(2.5e12)
    ('999 bytes', '12.3 kB', '3.4 MB', '2.5 TB')
    """
    return decimal(int(n_bytes))


def seconds_text(seconds: float) -> str:
    """A duration.

    Examples
    --------
    >>> seconds_text(0.04), seconds_text(4.83), seconds_text(215), seconds_text(7512)
    ('0.04 s', '4.8 s', '3 min 35 s', '2 h 5 min')
    """
    if seconds < 100:
        return f"{seconds:.{2 if seconds < 1 else 1}f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 100 else f"{minutes // 60:,} h {minutes % 60} min"


def share_text(part: float, whole: float) -> str:
    """A share in per cent.

    Examples
    --------
    >>> share_text(1, 3), share_text(1, 100_000), share_text(0, 5), share_text(0, 0)
    ('33.3%', '<0.1%', '0%', '0%')
    """
    if not part or not whole:
        return "0%"
    percent = 100 * part / whole
    return "<0.1%" if percent < 0.1 else f"{percent:.1f}%" if percent < 99.95 or part == whole else "99.9%"


def similarity_text(value: float | None) -> str:
    """A similarity or distance to four digits, truncated: a value below a threshold must not look equal to it.

    Examples
    --------
    >>> similarity_text(0.69999), similarity_text(1.0), similarity_text(None)
    ('0.6999', '1.0000', '')
    """
    return "" if value is None else f"{int(value * 10_000 + (1e-3 if value >= 0 else -1e-3)) / 10_000:.4f}"


def input_lines(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the stage `embed` found in its input and what it did not look at, in words, as (name, text) rows: what is usual has none.

    `summary`: of the stage; of older versions without some of its figures.

    Examples
    --------
    >>> input_lines({"n_keys": 2, "n_images": 3, "passed_over": {"members .npy": 2}})
    [('images', '3 in 2 samples'), ('not looked at', 'members .npy 2')]
    """
    lines = []
    n_keys, n_images = summary.get("n_keys", 0), summary.get("n_images", 0)
    if n_keys != n_images + summary.get("n_without_image", 0):  # else the reasons of rejected samples say it
        lines.append(("images", f"{n_images:,} in {counted(n_keys, 'sample')}"))
    if n_late := summary.get("n_late"):
        lines.append(("unsorted", f"{counted(n_late, 'sample')} whose members stand apart in the tar, joined by key"))
    if passed_over := summary.get("passed_over"):
        lines.append(("not looked at", _listed(passed_over)))
    if n_broken_off := summary.get("n_broken_off"):
        lines.append(("broken off", f"{counted(n_broken_off, 'shard')}, used up to there"))
    if n_unreadable := summary.get("n_unreadable"):
        lines.append(("unreadable", f"{counted(n_unreadable, 'shard')}, which input.allow_missing lets pass"))
    return lines + caption_lines(summary.get("texts", {}))


def caption_lines(texts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The accounts of captions and carried columns in words, as (name, text) rows.

    `texts`: of the summary of the stage `embed`; empty for runs of versions that did not keep it.

    Examples
    --------
    >>> texts = {"n_samples": 3, "n_captions": 4, "n_several": 1, "by_source": {"txt": 2}, "guessed": {"cp1252": 1}, "n_damaged": 1}
    >>> caption_lines(texts)
    [('captions', '2 of 3 images have one (txt 2), 1 more than one; encodings guessed: cp1252 1; 1 has parts that no encoding explains')]
    """
    if not texts:
        return []
    n, n_with = texts["n_samples"], sum(texts["by_source"].values())
    text = f"{n_with:,} of {n:,} images have one{_in_brackets(texts['by_source'])}"
    text += f", {texts['n_several']:,} more than one" if texts["n_several"] else ""
    text += f"; encodings guessed: {_listed(texts['guessed'])}" if texts["guessed"] else ""
    notes = (
        ("n_damaged", "parts that no encoding explains"),
        ("n_broken_json", "json that can't be parsed"),
        ("n_unread", "texts not read"),
    )
    for name, what in notes:
        if count := texts.get(name):
            first = texts.get("examples", {}).get(name)
            text += f"; {count:,} {'has' if count == 1 else 'have'} {what}{f' (the first: {printable(first)})' if first else ''}"
    lines = [("captions", text)]
    join = texts.get("join")
    if join:
        joined, images, rows = join["n_joined_images"], join["n_images"], join["n_joined_rows"]
        text = f"{joined:,} of {images:,} looked up have a row, {rows:,} of {texts['n_rows']:,} rows an image"
        n_ambiguous = join.get("n_ambiguous_images")
        text += f"; {n_ambiguous:,} without, because several paths fit them equally well" if n_ambiguous else ""
        lines.append(("table", text))
    if texts.get("carried"):
        lines.append(("carried", f"{_listed(texts['carried'])} of {n:,} images"))
    return lines


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _in_brackets(counts: Mapping[str, int]) -> str:
    return f" ({_listed(counts)})" if counts else ""
