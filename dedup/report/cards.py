"""Samples as cards: what is shown of one, alone, in a gallery or in a pair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dedup.report.asking import Asker, Row
from dedup.report.queries import FACTS
from dedup.report.texts import Text, cut, key_text, link, shard_name
from dedup.storage.pictures import Place
from dedup.text import bytes_text

_URL_SHOWN = 90  # characters


@dataclass(frozen=True)
class Card:
    """A sample as it is shown.

    Parameters
    ----------
    sample_id : int
    role : str
        kept, near, exact, excluded; '' in a pair.
    similarity, distance : float or None
        To the keeper; of an excluded sample to the reference.
    note : str
        A word beside the role.
    """

    sample_id: int
    role: str = ""
    similarity: float | None = None
    distance: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """What metadata says of a sample, ready to be shown."""

    key: Text
    shard: str
    caption: Text | None
    url: Text | None
    href: str
    size: str
    place: Place


@dataclass(frozen=True)
class Gallery:
    """Samples that belong together: a group of copies, or the pieces of a chain.

    Parameters
    ----------
    component_id : int
    n_samples : int
        All, shown or not.
    facts : list of (name, text)
        Figures under the title.
    caption : Text or None
        The most frequent one.
    cards : list of Card
        Keepers first, then copies from the most to the least similar.
    n_exact : int
    min_similarity : float or None
        Of the weakest member to the group's anchor; of the weakest edge where that is what the gallery is about.
    n_cards : int or None
        Cards that there would be if all were shown; None = one for each sample.
    """

    component_id: int
    n_samples: int
    facts: list[tuple[str, str]]
    caption: Text | None
    cards: list[Card]
    n_exact: int = 0
    min_similarity: float | None = None
    n_cards: int | None = None

    @property
    def n_members(self) -> int:
        """How many cards there would be if all were shown."""
        return self.n_samples if self.n_cards is None else self.n_cards


@dataclass(frozen=True)
class Pair:
    """Two samples side by side.

    Parameters
    ----------
    src, dst : Card
    similarity, distance : float or None
    reason : str
        Why they are no copies; '' where they are, or nobody asked.
    details : list of str
    """

    src: Card
    dst: Card
    similarity: float | None
    distance: float | None = None
    reason: str = ""
    details: list[str] = field(default_factory=list)


def facts_of(asker: Asker, sample_ids: Iterable[int]) -> dict[int, Facts]:
    """The facts of samples by sample_id."""
    return {row["sample_id"]: _facts(row) for row in asker.rows(FACTS, wanted=sample_ids)}


def _facts(row: Row) -> Facts:
    pixels = f"{row['width']:,} × {row['height']:,}" if row["width"] and row["height"] else ""
    return Facts(
        key_text(row["key"]),
        shard_name(row["shard"]),
        cut(row["caption"], row["n_characters"]),
        cut(row["url"], most=_URL_SHOWN),
        link(row["url"]),
        ", ".join(filter(None, (pixels, bytes_text(row["n_bytes"]) if row["n_bytes"] else ""))),
        Place(row["sample_id"], row["shard"], row["key"], row["byte_offset"], row["n_bytes"]),
    )


def pair_of(row: Row, details: Iterable[str] = (), reason: str = "") -> Pair:
    """A pair from a row of edges or refused."""
    return Pair(Card(row["src"]), Card(row["dst"]), row["similarity"], row.get("distance"), reason, [text for text in details if text])


def in_order_of_weight(shelves: Iterable[Iterable[Card]], known: Mapping[int, Facts]) -> list[int]:
    """sample_ids of all cards, those first that come first in their shelf: if room is short, every shelf has its first pictures."""
    placed = [(place, number, card.sample_id) for number, shelf in enumerate(shelves) for place, card in enumerate(shelf)]
    return [sample_id for _, _, sample_id in sorted(placed) if sample_id in known]
