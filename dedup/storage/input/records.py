"""What a record says about an image: captions, address and carried values, in JSON of many shapes and in rows of tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

import pyarrow as pa

from dedup.schemas import CARRIED_TYPES
from dedup.storage.input.encodings import clean_text

URL_NAMES: Final = ("url", "image_url", "img_url")
_DEPTH: Final = 6  # of lists and objects in each other
_CAPTION: Final = re.compile(r"captions?(_?\d+)?")
_TEXT: Final = re.compile(r"(texts?|txt)(_?\d+)?")
_OTHER_CAPTION: Final = re.compile(r"(\w+_)?(caption|captions)(_\w+)?")
_NO_CAPTION: Final = re.compile(r"\w*_(id|ids|similarity|length|len|count|num|source|language|lang|model|time|hash|url|path|file|score)")
_SENTENCE: Final = re.compile(r"(sentence|sentences|raw)(_?\d+)?")
# names that mean a caption only where nothing is called one
_WEAK: Final = tuple(re.compile(name) for name in ("prompts?", "alt_?texts?", "alts?", "descriptions?", "titles?", "comments?", "labels?"))
_STRONG: Final = (_CAPTION, _TEXT, _OTHER_CAPTION, _SENTENCE)
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*|\d+|english|german|french|spanish|chinese|japanese|russian|italian")
_CODE: Final = re.compile(r"[a-z]{2}([-_][A-Za-z0-9]{2,8})*")  # of a language, where nothing else says that there are languages
Record = Mapping[str, object]


def plain_name(name: str) -> str:
    """A column's name as it is compared: lower case, words joined by underscores.

    Examples
    --------
    >>> plain_name("Alt-Text"), plain_name(" TEXT")
    ('alt_text', 'text')
    """
    return re.sub(r"[\s.-]+", "_", name.strip().lower())


def caption_columns(names: Iterable[str]) -> list[list[str]]:
    """Columns that hold captions, by groups; the captions of a row are those of the first group that has one.

    First `caption` and `captions`, numbered ones as well; then `text`; other names with `caption` as a word; `sentence` and `raw`; last,
    each by itself, `prompt`, `alt_text`, `alt`, `description`, `title`, `comment`, `label`. Upper and lower case count alike.

    Examples
    --------
    >>> caption_columns(["title", "URL", "caption_1", "TEXT", "caption_0", "caption_similarity"])
    [['caption_1', 'caption_0'], ['TEXT'], ['title']]
    """
    return [[*group] for group in _caption_columns(tuple(names))]


@lru_cache(1_024)  # the records of a shard mostly have the same names
def _caption_columns(names: tuple[str, ...]) -> list[list[str]]:
    plain = {name: plain_name(name) for name in names}
    groups: list[list[str]] = []
    taken: set[str] = set()
    for pattern in (*_STRONG, *_WEAK):
        group = [name for name, text in plain.items() if name not in taken and pattern.fullmatch(text)]
        group = [name for name in group if not _NO_CAPTION.fullmatch(plain[name])]
        taken.update(group)
        # of several spellings the one that is the name itself comes first
        groups += [sorted(group, key=lambda name: name != plain[name])] if group and pattern in _WEAK else [group] if group else []
    return groups


@lru_cache(1_024)
def _is_weak(name: str) -> bool:
    return not any(pattern.fullmatch(plain_name(name)) for pattern in _STRONG)


def is_weak(group: Sequence[str]) -> bool:
    """Whether columns hold captions only for want of better ones."""
    return all(map(_is_weak, group))


def url_columns(names: Iterable[str]) -> list[str]:
    """Columns that hold the image's address, the likeliest first."""
    return [*_url_columns(tuple(names))]


@lru_cache(1_024)
def _url_columns(names: tuple[str, ...]) -> list[str]:
    plain = [(plain_name(name), name) for name in names]
    return [name for wanted in URL_NAMES for text, name in plain if text == wanted]


def parse_json(text: str) -> object:
    """The value of a JSON text, or of JSON lines, as a list.

    Raises ValueError if it is neither, or nested too deeply.
    """
    try:
        try:
            return json.loads(text)
        except ValueError:
            lines = [line for line in text.splitlines() if line.strip()]
            if len(lines) < 2:
                raise
            return [json.loads(line) for line in lines]
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def captions_in(value: object, *, weak: bool) -> list[str]:
    """The captions in a JSON value, in its order, without repetitions.

    `value`: an object with one of the names of `caption_columns`; a list of texts or of such objects; a text. A caption may itself be a
    list, an object by language or number, or an object such as ``{"raw": …}``. Where no name means a caption, those of the one object or
    list inside that has any, as in COCO's ``{"annotations": [{"caption": …}]}``, unless these belong to several images.
    `weak`: also by names that mean a caption only for want of better ones.

    Examples
    --------
    >>> captions_in({"captions": {"en": ["a cat"], "de": "eine Katze"}, "id": 7}, weak=False)
    ['a cat', 'eine Katze']
    >>> captions_in({"annotations": [{"caption": "a"}, {"caption": "b"}]}, weak=False)
    ['a', 'b']
    """
    if weak and isinstance(value, dict) and value and all(_CODE.fullmatch(name) and as_text(text) for name, text in value.items()):
        return list(dict.fromkeys(str(as_text(text)) for text in value.values())) if len(value) > 1 or "en" in value else []
    return list(dict.fromkeys(_captions(value, weak, 0)))


def _captions(value: object, weak: bool, depth: int) -> list[str]:
    if depth > _DEPTH:
        return []
    if isinstance(value, dict):
        return _of_object(value, weak, depth)
    if isinstance(value, list):
        return _of_list(value, weak, depth)
    text = as_text(value)
    return [] if text is None or (depth == 0 and not weak) else [text]


def _of_object(record: Mapping[str, object], weak: bool, depth: int) -> list[str]:
    for group in caption_columns(record):
        if is_weak(group) and not weak:
            continue
        if found := [text for name in group for text in _of_caption(record[name], depth + 1)]:
            return found
    if depth >= _DEPTH:
        return []
    inside = [found for value in record.values() if isinstance(value, (dict, list)) and (found := _inside(value, depth + 1))]
    return inside[0] if len(inside) == 1 else []


def _inside(value: object, depth: int) -> list[str]:
    """Captions of an object, or of a list of objects, whose own name says nothing."""
    if isinstance(value, list):
        return _of_list([item for item in value if isinstance(item, dict)], False, depth)
    return _captions(value, False, depth)


def _of_list(items: list[object], weak: bool, depth: int) -> list[str]:
    if len({str(item["image_id"]) for item in items if isinstance(item, dict) and "image_id" in item}) > 1:
        return []  # annotations of several images
    return [text for item in items for text in _captions(item, weak, depth + 1)]


def _of_caption(value: object, depth: int) -> list[str]:
    """Texts of a value that is called a caption."""
    if depth > _DEPTH:
        return []
    if isinstance(value, list):
        if len({str(item["image_id"]) for item in value if isinstance(item, dict) and "image_id" in item}) > 1:
            return []
        return [text for item in value for text in _of_caption(item, depth + 1)]
    if not isinstance(value, dict):
        text = as_text(value)
        return [] if text is None else [text]
    if found := _of_object(value, True, depth):
        return found
    by_language = [text for name, item in value.items() if _LANGUAGE.fullmatch(name) for text in _of_caption(item, depth + 1)]
    texts = [text for item in value.values() if (text := as_text(item)) is not None]
    return by_language or (texts if len(texts) == 1 else [])


def as_text(value: object) -> str | None:
    """A text, valid UTF-8 without NUL, without surrounding whitespace; None if it is no text or nothing remains."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    return clean_text(value).lstrip("\ufeff").strip() or None


def read_url(records: Iterable[Record]) -> str | None:
    """First address of the records, by `URL_NAMES`."""
    values = (record[name] for record in records for name in url_columns(record))
    return next((text for value in values if (text := as_text(value)) is not None), None)


def objects_in(value: object) -> Iterator[Record]:
    """The objects of a JSON value in which carried columns are looked for: itself or a list's, then those right inside."""
    outer = [value] if isinstance(value, dict) else [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
    yield from outer
    for record in outer:
        yield from (inner for inner in record.values() if isinstance(inner, dict))


def read_carried(records: Sequence[Record], carry: Sequence[str]) -> dict[str, object]:
    """Values of the carried columns, of the types of `CARRIED_TYPES`; None where no record has a usable one.

    `records`: the first that has a usable value gives it.
    `carry`: column names; lower and upper case count as well (LICENSE, license).
    """
    return {name: _carried(records, name) for name in carry}


def aliases(name: str) -> tuple[str, ...]:
    """The names that a carried column may have in the data.

    Examples
    --------
    >>> aliases("LICENSE")
    ('LICENSE', 'license')
    """
    return tuple(dict.fromkeys((name, name.lower(), name.upper())))


def _carried(records: Sequence[Record], name: str) -> object:
    for record in records:
        for alias in aliases(name):
            if alias in record and (value := coerce(name, record[alias])) is not None:
                return value
    return None


def coerce(name: str, value: object) -> float | int | str | None:
    """Convert a value to the type of a carried column; None if it can't be.

    Examples
    --------
    >>> coerce("similarity", "0.31"), coerce("original_width", 512.0), coerce("LICENSE", ["a", 1]), coerce("punsafe", "?")
    (0.31, 512, '["a", 1]', None)
    """
    kind = CARRIED_TYPES.get(name)
    if value is None:
        return None
    if kind is None:
        if isinstance(value, bytes):
            return clean_text(value.decode("utf-8", "replace"))
        return clean_text(value if isinstance(value, str) else json.dumps(value, default=str))
    if isinstance(value, bool) or not isinstance(value, (int, float, str, bytes)):
        return None
    try:
        if pa.types.is_floating(kind):
            return float(value)
        # a table of text may have whole numbers as 640.0
        whole = _whole(value) if isinstance(value, (str, bytes)) else int(value)
    except (ValueError, OverflowError):
        return None
    return whole if -(2**63) <= whole < 2**63 else None


def _whole(text: str | bytes) -> int:
    """A whole number from a text; raises ValueError for any other."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise
        return int(number)
