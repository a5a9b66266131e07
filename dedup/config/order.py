"""The grammar of `keep.order_by`: columns with a direction; the first in which two samples differ decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dedup.config.key import did_you_mean
from dedup.errors import ConfigError

ORDER_COLUMNS: Final = (
    "originality", "has_caption", "has_exif", "width", "height", "width*height", "n_bytes", "quality", "jpeg_quality", "format",
    "exif_date", "caption_similarity", "sample_id", "key", "shard",
)  # fmt: skip
_PRESENCE: Final = {"has_caption": "caption", "has_exif": "exif_date"}  # of a value in a column


@dataclass(frozen=True)
class OrderTerm:
    """One term: what is compared, and whether larger values come first. Missing values always come last."""

    name: str
    is_descending: bool
    text: str  # as written, with single spaces

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns whose product is compared.

        >>> parse_order(["width*height desc"])[0].columns
        ('width', 'height')
        """
        return (_PRESENCE[self.name],) if self.is_presence else tuple(self.name.split("*"))

    @property
    def is_presence(self) -> bool:
        """Whether it asks only if there is a value in its column."""
        return self.name in _PRESENCE


TIE: Final = OrderTerm("sample_id", False, "sample_id asc")  # decides what an order leaves open


def parse_order(order_by: Sequence[str], carry: Sequence[str] = ()) -> tuple[OrderTerm, ...]:
    """The terms of an order.

    `order_by`: ``COLUMN``, ``COLUMN asc`` or ``COLUMN desc``.
    `carry`: carried columns, which may be named besides `ORDER_COLUMNS`.
    Raises ConfigError if there is no term, or one names an unknown column or direction.

    >>> [(term.name, term.is_descending) for term in parse_order(["width*height desc", "key"])]
    [('width*height', True), ('key', False)]
    """
    allowed = [*ORDER_COLUMNS, *carry]
    if not order_by:
        raise ConfigError(f"keep.order_by is empty; expected one or more of {', '.join(allowed)}; leave the key out for the default")
    return tuple(_parse_term(entry, allowed) for entry in order_by)


def _parse_term(entry: str, allowed: Sequence[str]) -> OrderTerm:
    name, _, direction = entry.strip().partition(" ")
    if name not in allowed:
        raise ConfigError(f"keep.order_by: unknown column in '{entry}'; expected one of {', '.join(allowed)}{did_you_mean(name, allowed)}")
    direction = direction.strip().lower()
    if direction not in ("", "asc", "desc"):
        raise ConfigError(f"keep.order_by: unknown direction in '{entry}'; expected '{name} asc' or '{name} desc'")
    return OrderTerm(name, direction == "desc", " ".join(entry.split()))
