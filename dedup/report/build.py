"""Writing a report: what is gathered, the pictures there is room for, one file."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from dedup.contracts import Engine
from dedup.errors import ConfigError, MissingExtra
from dedup.report import figures, queries
from dedup.report.cards import MOST_COMPRESSED, Card, Facts, Pictures, facts_of, in_order_of_weight, read_pictures
from dedup.report.galleries import Galleries, Pairs, galleries, pairs
from dedup.report.page import Excluded, Gathered, Page
from dedup.report.queries import Asker
from dedup.report.reported import open_reported, state_of
from dedup.report.texts import cut, shard_name
from dedup.runs.directory import Run
from dedup.storage.atomic import write_bytes
from dedup.storage.urls import join, read_range

MOST_GALLERIES: Final = 100
_EXCLUDED_SHOWN: Final = 8  # of each reason
_STATE = '<meta name="dedup-state" content="{}">'
_NOTE_BYTES: Final = 4_096  # that notes about pictures take at most
_HEAD_BYTES: Final = 4_096  # in which the state stands


@dataclass(frozen=True)
class Limits:
    """How much a report may be.

    Parameters
    ----------
    max_bytes : int
        Of the page.
    most_compressed : int
        Compressed tars that pictures are read from.
    """

    max_bytes: int = 25_000_000
    most_compressed: int = MOST_COMPRESSED


LIMITS = Limits()


@dataclass(frozen=True)
class ReportSummary:
    """What was written.

    Parameters
    ----------
    path : str
    n_bytes : int
    n_pictures : int
    notes : list of str
        What is missing from it.
    """

    path: str
    n_bytes: int
    n_pictures: int
    notes: list[str] = field(default_factory=list)


def can_write() -> bool:
    """Whether the extra `report` is there."""
    return importlib.util.find_spec("jinja2") is not None


def path_of(run_dir: str) -> str:
    """Where the report of a run lies."""
    return join(run_dir, "report.html")


def is_current(run_dir: str) -> bool:
    """Whether a run has a report that was made from its present state."""
    try:
        head = read_range(path_of(run_dir), 0, _HEAD_BYTES)
    except (OSError, ValueError):  # not there; ValueError where a file system does so for a range of it
        return False
    return _STATE.format(state_of(open_reported(run_dir))).encode() in head


def write(run_dir: str, out: str = "", *, n_galleries: int = 20, seed: int = 0, engine: Engine, limits: Limits = LIMITS) -> ReportSummary:
    """Write the report of a run; see `dedup.write_report`."""
    if not can_write():
        raise MissingExtra("jinja2", "report")
    if not 0 <= n_galleries <= MOST_GALLERIES:
        raise ConfigError(f"{n_galleries} galleries: expected 0 to {MOST_GALLERIES}; `dedup show` draws others")
    run = open_reported(run_dir)
    asker = Asker(engine, run)
    groups, found = galleries(asker, run, n=n_galleries, seed=seed), pairs(asker, run, seed=seed)
    excluded = _excluded(asker, run)
    shelves = [*_shelves(groups, found), *([card for card, _ in cards] for _, cards in excluded)]
    facts = facts_of(asker, (card.sample_id for shelf in shelves for card in shelf))
    order = in_order_of_weight(shelves, facts)
    pictures = _pictures(run, facts, order, limits)
    page = Page(Gathered(run, groups, found, excluded, facts, pictures, seed), asker)
    bare = page.render({})
    shown = pictures.within(limits.max_bytes - len(bare) - _NOTE_BYTES, order)
    page.say_pictures(len(shown))
    data = page.render(shown)
    path = out or path_of(run_dir)
    write_bytes(path, data)
    return ReportSummary(path, len(data), len(shown), page.notes)


def _shelves(groups: Galleries, found: Pairs) -> Iterable[list[Card]]:
    """All cards, a list for each gallery and pair."""
    for part in (groups.largest, groups.weakest, groups.random, groups.chains, groups.loosest):
        yield from (gallery.cards for gallery in part)
    for several in (found.below, found.confirmed, found.nearly, *(some for _, some in found.refused)):
        yield from ([pair.src, pair.dst] for pair in several)


def _pictures(run: Run, facts: dict[int, Facts], order: list[int], limits: Limits) -> Pictures:
    if not run.has_pixels:
        return Pictures(n_wanted=len(facts))
    places = {sample_id: known.place for sample_id, known in facts.items()}
    max_pixels = run.config.input.max_pixels
    return read_pictures(run, places, order, max_pixels=max_pixels, most_compressed=limits.most_compressed)


_EXCLUSIONS = {
    "reference": "near a reference image",
    "listed": "named by exclude.list",
    "copy": "a copy of a listed sample",
}


def _excluded(asker: Asker, run: Run) -> Excluded:
    rows = asker.rows(queries.EXCLUDED, n=_EXCLUDED_SHOWN) if run.records["manifest"].rows.get("excluded") else []
    for row in rows:
        row |= {"by": cut(row["excluded_by"], most=120), "home": shard_name(row["reference_shard"] or "")}
    return [
        (reason, [(Card(row["sample_id"], "excluded", row["similarity"], row["distance"]), row) for row in reason.examples])
        for reason in figures.reasons_of(rows, _EXCLUSIONS, "excluded")
    ]
