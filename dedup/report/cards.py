"""Samples as cards: what is shown of one, alone, in a gallery or in a pair."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

import numpy as np
import simplejpeg

from dedup.errors import DedupError
from dedup.numerics.arraytypes import Pixels
from dedup.numerics.image.descriptor import VARIANTS, area_resize
from dedup.report.queries import FACTS, Row, TableReader
from dedup.runs.directory import Run
from dedup.storage.images.reader import PictureReader, Place
from dedup.storage.images.thumbnails import open_thumbnails
from dedup.storage.urls import is_local
from dedup.text import Text, bytes_text, cut, key_text, link, shard_name

SIDE: Final = 160  # pixels of the longer side, at most
_QUALITY: Final = 70
_MOST_PICTURES: Final = 4_000
MOST_COMPRESSED: Final = 8  # compressed tars, each of which is read from its beginning
_TAG_BYTES: Final = 100  # of the page that a picture takes beside its own
_REMOTE_TRIES: Final = 30  # failures in a row that end the reading of remote shards: a host may be gone
_TRIES: Final = 3  # failures in a row after which the rest of a shard is passed over
_URL_SHOWN = 90  # characters


@dataclass(frozen=True)
class Card:
    """A sample as it is shown."""

    sample_id: int
    role: str = ""  # kept, near, exact, excluded; '' in a pair
    # similarity, distance: to the keeper; of an excluded sample to the reference
    similarity: float | None = None
    distance: float | None = None
    note: str = ""  # a word beside the role


@dataclass(frozen=True)
class Facts:
    """The metadata of a sample, ready to be shown."""

    key: Text
    shard: str
    caption: Text | None
    url: Text | None
    href: str
    size: str
    place: Place
    edits: str  # what was done to it, as the other copies of its group show; '' for nothing
    file: str = ""  # address of its file on this machine, to be opened; '' for samples in tars


@dataclass(frozen=True)
class Gallery:
    """Samples that belong together: a group of copies, or the pieces of a chain."""

    component_id: int
    n_samples: int  # all, shown or not
    facts: list[tuple[str, str]]  # (name, figure), under the title
    caption: Text | None  # the most frequent one
    cards: list[Card]  # keepers first, then copies from the most to the least similar
    n_exact: int = 0
    # of the weakest member to the group's anchor; of the weakest edge where that is what the gallery is about
    min_similarity: float | None = None
    n_cards: int | None = None  # cards if all were shown; None = one for each sample

    @property
    def n_members(self) -> int:
        """How many cards there would be if all were shown."""
        return self.n_samples if self.n_cards is None else self.n_cards


@dataclass(frozen=True)
class Pair:
    """Two samples side by side."""

    src: Card
    dst: Card
    similarity: float | None
    distance: float | None = None
    reason: str = ""  # why they are no copies; '' where they are, or were not judged
    details: list[str] = field(default_factory=list)
    # six numbers: rows of the map that lays the first on the second, in relative coordinates; '' where that is not known
    overlay: str = ""


@dataclass
class Pictures:
    """What could be read."""

    jpegs: dict[int, bytes] = field(default_factory=dict)  # by sample_id
    n_wanted: int = 0  # samples that are shown
    n_unread: int = 0  # of these: their shard or image could not be read
    n_left_out: int = 0  # of these: not read, because there are too many, or they are in too many compressed tars
    trouble: str = ""  # why the first could not be read

    def within(self, n_bytes: int, order: Sequence[int]) -> dict[int, str]:
        """Pictures as base64, the first in `order` that fit into `n_bytes`; each takes its room as often as it occurs."""
        times, chosen = Counter(order), dict[int, str]()
        for sample_id in dict.fromkeys(order):
            data = self.jpegs.get(sample_id)
            if data is None:
                continue
            n_bytes -= times[sample_id] * (-(-len(data) // 3) * 4 + _TAG_BYTES)
            if n_bytes < 0:
                break
            chosen[sample_id] = base64.b64encode(data).decode()
        return chosen


def facts_of(reader: TableReader, sample_ids: Iterable[int]) -> dict[int, Facts]:
    """Read the facts of samples, by sample_id."""
    return {row["sample_id"]: _facts(row) for row in reader.rows(FACTS, wanted=sample_ids)}


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
        ", ".join(row["edits"] or ()),
        f"file://{quote(row['shard'] + row['key'])}" if row["shard"].startswith("/") and row["shard"].endswith("/") else "",
    )


def pair_of(row: Row, details: Iterable[str] = (), reason: str = "") -> Pair:
    """A pair from a row of edges or refused."""
    shown = [text for text in details if text]
    overlay = overlay_of(row.get("transform"), row.get("variant"))
    return Pair(Card(row["src"]), Card(row["dst"]), row["similarity"], row.get("distance"), reason, shown, overlay)


def overlay_of(transform: Sequence[float] | None, variant: str | None) -> str:
    """The map that lays the first picture of a pair, as it is, on the second.

    `transform`: rows of the map of the turned picture.
    `variant`: how it was turned.

    >>> overlay_of([1, 0, 0, 0, 1, 0], "mirror")
    '-1 0 1 0 1 0'
    """
    if transform is None or variant not in ("none", *VARIANTS):
        return ""
    turn = np.eye(3)
    if variant != "none":
        transpose, reverse_rows, reverse_columns = VARIANTS[variant]
        turn = turn[[1, 0, 2]] if transpose else turn
        for row, is_reversed in enumerate((reverse_columns, reverse_rows)):
            turn[row] = np.array([0.0, 0.0, 1.0]) - turn[row] if is_reversed else turn[row]
    lines = np.asarray(transform, dtype=np.float64).reshape(2, 3) @ turn
    return " ".join(f"{value:.5g}" for value in lines.ravel())


def in_order_of_weight(shelves: Iterable[Iterable[Card]], facts: Mapping[int, Facts]) -> list[int]:
    """sample_ids of all cards, the first of every shelf before the second of any: if room is short, each shelf has its first pictures."""
    placed = [(place, number, card.sample_id) for number, shelf in enumerate(shelves) for place, card in enumerate(shelf)]
    return [sample_id for _, _, sample_id in sorted(placed) if sample_id in facts]


def read_pictures(
    run: Run, places: Mapping[int, Place], order: Sequence[int], *, max_pixels: int, most_compressed: int = MOST_COMPRESSED
) -> Pictures:
    """Read and reduce the pictures of samples, shard by shard.

    `places`: sample_id to where its image lies.
    `order`: sample_ids, the most important first.
    `most_compressed`: compressed tars to read at most.
    """
    wanted = [places[sample_id] for sample_id in dict.fromkeys(order) if sample_id in places]
    pictures = Pictures(n_wanted=len(wanted))
    affordable = _affordable(run, wanted[:_MOST_PICTURES], most_compressed)
    pictures.n_left_out = len(wanted) - len(affordable)
    failures: Counter[str] = Counter()
    n_remote_failures = 0
    with PictureReader(run.path("embeddings"), SIDE, max_pixels=max_pixels) as reader:
        reader.prefetch(affordable)
        for place in sorted(affordable, key=lambda place: (place.shard, place.byte_offset or 0, place.sample_id)):
            is_remote = not is_local(place.shard)
            # a file that is gone from a folder says nothing of the next, a shard does
            is_gone = failures[place.shard] >= _TRIES and not place.shard.endswith("/")
            if not is_gone and not (is_remote and n_remote_failures >= _REMOTE_TRIES):
                try:
                    pictures.jpegs[place.sample_id] = small_jpeg(reader.read(place))
                    failures[place.shard] = n_remote_failures = 0
                    continue
                except DedupError as error:
                    failures[place.shard] += 1
                    n_remote_failures += is_remote
                    pictures.trouble = pictures.trouble or str(error)
            pictures.n_unread += 1
    return pictures


def small_jpeg(pixels: Pixels) -> bytes:
    """A JPEG whose longer side has at most `SIDE` pixels."""
    height, width = pixels.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    if scale < 1.0:
        pixels = area_resize(pixels, max(1, round(width * scale)), max(1, round(height * scale)))
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=_QUALITY, colorspace="RGB", colorsubsampling="420"))


def _affordable(run: Run, places: Sequence[Place], most_compressed: int) -> list[Place]:
    """The places without those in compressed tars beyond the first few."""
    thumbnails, compressed = open_thumbnails(run.path("embeddings")), set[str]()
    chosen = []
    for place in places:
        if place.byte_offset is None and (thumbnails is None or place.sample_id not in thumbnails):
            if place.shard not in compressed and len(compressed) == most_compressed:
                continue
            compressed.add(place.shard)
        chosen.append(place)
    return chosen
