"""The grammar of `keep.order_by`: columns with a direction; the first in which two samples differ decides, but for `keep.prefer`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dedup.config.key import did_you_mean
from dedup.errors import ConfigError

ORDER_COLUMNS: Final = (
    "originality", "has_caption", "has_exif", "width", "height", "width*height", "n_bytes", "quality", "jpeg_quality", "format",
    "exif_date", "mtime", "caption_similarity", "sample_id", "path", "key", "shard",
)  # fmt: skip
_PRESENCE: Final = {"has_caption": "caption", "has_exif": "exif_date"}  # of a value in a column
_PATH: Final = ("shard", "key")  # columns that make a path


@dataclass(frozen=True)
class OrderTerm:
    """One term: what is compared, and whether larger values come first. Missing values always come last."""

    name: str
    is_descending: bool
    text: str  # as written, with single spaces
    prefixes: tuple[str, ...] = ()  # of `keep.prefer`, without a '/' at the end: files and folders, the first preferred most

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are compared: their product, or the path that `shard` and `key` make.

        >>> parse_order(["width*height desc"])[0].columns
        ('width', 'height')
        """
        if self.is_path:
            return _PATH
        return (_PRESENCE[self.name],) if self.is_presence else tuple(self.name.split("*"))

    @property
    def is_path(self) -> bool:
        """Whether it compares paths: whole ones, or by the prefix that they have."""
        return bool(self.prefixes) or self.name == "path"

    @property
    def is_presence(self) -> bool:
        """Whether it asks only if there is a value in its column."""
        return self.name in _PRESENCE


PREFER: Final = "keep.prefer"
TIE: Final = OrderTerm("sample_id", False, "sample_id asc")  # decides what an order leaves open


def path_of(shard: str, key: str) -> str:
    """The path of a sample: of its own file in a folder, else of the file that holds it.

    >>> path_of("/data/photos/", "a/1.jpg"), path_of("/data/00000.tar", "0001")
    ('/data/photos/a/1.jpg', '/data/00000.tar')
    """
    return shard + key if shard.endswith("/") else shard


def rank_of(path: str, prefixes: Sequence[str]) -> int:
    """Which of some files and folders is or holds a path: its number, or how many there are if none does.

    >>> rank_of("/a/b/1.jpg", ["/c", "/a/b"]), rank_of("/a/bc/1.jpg", ["/c", "/a/b"])
    (1, 2)
    """
    return next((rank for rank, prefix in enumerate(prefixes) if path == prefix or path.startswith(f"{prefix}/")), len(prefixes))


def parse_order(order_by: Sequence[str], carry: Sequence[str] = (), prefer: Sequence[str] = ()) -> tuple[OrderTerm, ...]:
    """The terms of an order.

    `order_by`: ``COLUMN``, ``COLUMN asc`` or ``COLUMN desc``.
    `carry`: carried columns, which may be named besides `ORDER_COLUMNS`.
    `prefer`: absolute paths or URLs of files and folders; what lies there comes first.
    Raises ConfigError if there is no term, or one names an unknown column or direction.

    >>> [(term.name, term.is_descending) for term in parse_order(["width*height desc", "key"])]
    [('width*height', True), ('key', False)]
    """
    allowed = [*ORDER_COLUMNS, *carry]
    if not order_by:
        raise ConfigError(f"keep.order_by is empty; expected one or more of {', '.join(allowed)}; leave the key out for the default")
    terms = tuple(_parse_term(entry, allowed) for entry in order_by)
    prefixes = tuple(prefix.rstrip("/") for prefix in prefer)
    return (OrderTerm("prefer", False, PREFER, prefixes), *terms) if prefixes else terms


def _parse_term(entry: str, allowed: Sequence[str]) -> OrderTerm:
    name, _, direction = entry.strip().partition(" ")
    if name not in allowed:
        raise ConfigError(f"keep.order_by: unknown column in '{entry}'; expected one of {', '.join(allowed)}{did_you_mean(name, allowed)}")
    direction = direction.strip().lower()
    if direction not in ("", "asc", "desc"):
        raise ConfigError(f"keep.order_by: unknown direction in '{entry}'; expected '{name} asc' or '{name} desc'")
    return OrderTerm(name, direction == "desc", " ".join(entry.split()))
