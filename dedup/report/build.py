"""Writes the report of a run: gathers what is shown, reads the pictures there is room for, and fills the template."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from dedup.config.key import STAGE_NAMES
from dedup.config.keys import KEYS, values_of
from dedup.contracts import Engine
from dedup.engines.local import engine_or_own
from dedup.errors import ConfigError, MissingExtra, RunDirectoryError
from dedup.report import figures, queries
from dedup.report.cards import MOST_COMPRESSED, Card, Facts, Pictures, facts_of, in_order_of_weight, read_pictures
from dedup.report.galleries import Galleries, Pairs, galleries, pairs
from dedup.report.queries import Row, TableReader
from dedup.report.related import AllRelated, all_related
from dedup.runs.directory import Run
from dedup.runs.record import digest
from dedup.storage.atomic import write_bytes
from dedup.storage.urls import join, read_range
from dedup.text import Text, cut, input_lines, seconds_text, shard_name, shown, similarity_text

if TYPE_CHECKING:
    import jinja2

_NEEDED = ("embed", "index", "pairs", "confirm", "groups", "manifest")


def open_reported(run_dir: str) -> Run:
    """The run that a report is about; RunDirectoryError if there is none, or its manifest is not written yet."""
    run = Run.open(run_dir)
    for stage in _NEEDED:
        run.finished(stage)
    return run


def state_of(run: Run) -> str:
    """Digest of all that the report is drawn from: a report with another one is out of date."""
    return digest([[record.digest, record.finished] for record in run.records.values()])


def notes_on(run: Run) -> list[str]:
    """Stages that are missing, or were made from an earlier state of others."""
    notes, missing = [], [stage for stage in STAGE_NAMES if run.record(stage) is None]
    if missing:
        parts = f"the stage {missing[0]} is" if len(missing) == 1 else f"the stages {' and '.join(missing)} are"
        notes.append(f"{parts} not finished: what is drawn from there is left out; run dedup run … and then dedup report again")
    for stage, record in run.records.items():
        inputs = {name: run.record(name) for name in record.inputs if name in STAGE_NAMES}
        earlier = [name for name, now in inputs.items() if now is not None and now.digest != record.inputs[name]]
        if earlier:
            notes.append(f"the stage {stage} was made from an earlier {earlier[0]}: figures may disagree; run dedup run … --redo")
    return notes


Excluded = list[tuple[figures.Reason, list[tuple[Card, Row]]]]

MOST_GALLERIES: Final = 100
_EXCLUDED_SHOWN: Final = 8  # of each reason
_STATE = '<meta name="dedup-state" content="{}">'
_NOTE_BYTES: Final = 4_096  # reserved for notes about pictures
_HEAD_BYTES: Final = 4_096  # of the page: the state is among them


@dataclass(frozen=True)
class Limits:
    """How large a report may be, and what may be read for it."""

    max_bytes: int = 25_000_000  # of the page
    most_compressed: int = MOST_COMPRESSED  # compressed tars that pictures are read from


LIMITS = Limits()

_EXCLUSIONS = {"reference": "near a reference image", "listed": "named by exclude.list", "copy": "a copy of a listed sample"}


@dataclass(frozen=True)
class ReportSummary:
    """What was written."""

    path: str
    n_bytes: int
    n_pictures: int
    notes: list[str] = field(default_factory=list)  # what is missing from it


@dataclass(frozen=True)
class Gathered:
    """What a page shows of samples."""

    run: Run
    groups: Galleries
    pairs: Pairs
    related: AllRelated
    excluded: Excluded
    facts: dict[int, Facts]  # by sample_id
    pictures: Pictures
    seed: int  # of all that was drawn at random


@dataclass(frozen=True)
class Setting:
    """A configuration key with its value."""

    key: str
    value: Text
    default: Text
    is_default: bool
    means: str


def write_report(
    run_dir: str, out: str = "", *, n_galleries: int = 20, seed: int = 0, engine: Engine | None = None, limits: Limits = LIMITS
) -> ReportSummary:
    """Write the HTML report of a finished run, as one self-contained file.

    Parameters
    ----------
    run_dir : str
        A path or any fsspec URL. The stages up to `manifest` must be finished; without later ones, their parts are left out.
    out : str
        File to write; by default `report.html` in the run directory.
    n_galleries : int
        How many of the largest groups to draw, and as many random ones; 0 to 100.
    seed : int
        Of the random groups and of the sample of vectors.
    engine : Engine
        Runs the queries; by default DuckDB on this machine.
    limits : Limits
        Limits on the size of the report.

    Returns
    -------
    ReportSummary
        Path, bytes, pictures, and `notes` on what is missing, such as why there are no pictures.

    Raises
    ------
    MissingExtra
        If jinja2 is not installed.
    RunDirectoryError
        If a stage up to `manifest` is not finished, naming it.

    Notes
    -----
    At most 25 MB: beyond that, pictures are left out, the first of each gallery last. Two reports of one run differ only in their date.
    """
    if not can_write():
        raise MissingExtra("jinja2", "report")
    if not 0 <= n_galleries <= MOST_GALLERIES:
        raise ConfigError(f"{n_galleries} galleries: expected 0 to {MOST_GALLERIES}; `dedup show` draws others")
    run = open_reported(run_dir)
    with engine_or_own(engine) as engine:
        return _write(TableReader(engine, run), run, out or path_of(run_dir), n_galleries, seed, limits)


def can_write() -> bool:
    """Whether the extra `report` is installed."""
    return importlib.util.find_spec("jinja2") is not None


def path_of(run_dir: str) -> str:
    """Where the report of a run lies."""
    return join(run_dir, "report.html")


def is_current(run_dir: str) -> bool:
    """Whether a run has a report that was made from its present state."""
    try:
        head = read_range(path_of(run_dir), 0, _HEAD_BYTES)
    except (OSError, ValueError):  # no such file; some file systems raise ValueError for a range of one
        return False
    return _STATE.format(state_of(open_reported(run_dir))).encode() in head


def _write(reader: TableReader, run: Run, path: str, n_galleries: int, seed: int, limits: Limits) -> ReportSummary:
    groups, drawn_pairs = galleries(reader, run, n=n_galleries, seed=seed), pairs(reader, run, seed=seed)
    excluded, related = _excluded(reader, run), all_related(reader, run)
    of_related = (one.gallery.cards for one in (*related.templates, *related.scenes))
    shelves = [*_shelves(groups, drawn_pairs), *of_related, *([card for card, _ in cards] for _, cards in excluded)]
    facts = facts_of(reader, (card.sample_id for shelf in shelves for card in shelf))
    order = in_order_of_weight(shelves, facts)
    pictures = _pictures(run, facts, order, limits)
    page = Page(Gathered(run, groups, drawn_pairs, related, excluded, facts, pictures, seed), reader)
    bare = page.render({})
    shown = pictures.within(limits.max_bytes - len(bare) - _NOTE_BYTES, order)
    page.note_missing_pictures(len(shown))
    data = page.render(shown)
    try:
        write_bytes(path, data)
    except OSError as error:
        raise RunDirectoryError(
            f"{path} can't be written ({error.strerror or error}); name another file: dedup report {run} --out FILE"
        ) from error
    return ReportSummary(path, len(data), len(shown), page.notes)


def _shelves(groups: Galleries, drawn_pairs: Pairs) -> Iterable[list[Card]]:
    """All cards, a list for each gallery and pair."""
    for part in (groups.largest, groups.weakest, groups.random, groups.chains, groups.loosest):
        yield from (gallery.cards for gallery in part)
    yield from (cards for _, cards in drawn_pairs.poorest)
    of_reason = [refused for _, refused in (*drawn_pairs.refused, *drawn_pairs.edited)]
    for section in (drawn_pairs.below, drawn_pairs.confirmed, drawn_pairs.nearly, *of_reason):
        yield from ([pair.src, pair.dst] for pair in section)


def _pictures(run: Run, facts: dict[int, Facts], order: list[int], limits: Limits) -> Pictures:
    if not run.has_pixels:
        return Pictures(n_wanted=len(facts))
    places = {sample_id: fact.place for sample_id, fact in facts.items()}
    return read_pictures(run, places, order, max_pixels=run.config.input.max_pixels, most_compressed=limits.most_compressed)


def _excluded(reader: TableReader, run: Run) -> Excluded:
    rows = reader.rows(queries.EXCLUDED, n=_EXCLUDED_SHOWN) if run.records["manifest"].rows.get("excluded") else []
    for row in rows:
        row |= {"by": cut(row["excluded_by"], most=120), "home": shard_name(row["reference_shard"] or "")}
    return [
        (reason, [(Card(row["sample_id"], "excluded", row["similarity"], row["distance"]), row) for row in reason.examples])
        for reason in figures.reasons_of(rows, _EXCLUSIONS, "excluded")
    ]


class Page:
    """The template and what it is filled with."""

    def __init__(self, gathered: Gathered, reader: TableReader) -> None:
        run = gathered.run
        self._pictures, self._has_pixels = gathered.pictures, run.has_pixels
        n_of_status, broken = figures.broken_shards(reader)
        self.notes = [*notes_on(run)]
        if n_of_status:
            self.notes.append(f"of the shards {', '.join(f'{n:,} were {status}' for status, n in n_of_status.items())}: see Rejected")
        sized, size_rows = figures.sizes(run) if "statistics" in run.records else (None, [])
        counts = figures.bins(reader)
        judged, sampled = figures.similarities(counts, run, gathered.pairs.sample)
        measured, n_unmeasured = figures.distances(counts, run)
        dropped, ways = figures.kinds(reader, run)
        edits = figures.edits(reader, run)
        n_refused = sum(reason.part.n for reason, _ in gathered.pairs.refused)
        style, script = _template("report.css"), _template("report.js")
        self._values: dict[str, Any] = vars(gathered) | {
            "accounts": figures.accounts(run), "tiles": figures.tiles(run, n_refused), "sizes": sized, "size_rows": size_rows,
            "judged": judged, "sampled": sampled, "distances": measured, "n_unmeasured": n_unmeasured, "dropped": dropped, "ways": ways,
            "edits": edits,
            "rejected": figures.rejected(reader), "broken_shards": broken,
            "captions": figures.captions(reader) if "statistics" in run.records else [],
            "input_lines": input_lines(run.records["embed"].summary),
            "stages": stages(run), "settings": settings(run), "style": style, "script": script,
            "style_hash": _hash(style), "script_hash": _hash(script), "state": state_of(run), "notes": self.notes,
            "finished": max(record.finished for record in run.records.values()).replace("T", " ").partition("+")[0],
            "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        }  # fmt: skip
        self._page = _compiled()

    def render(self, pictures: dict[int, str]) -> bytes:
        """The page with these pictures, base64 by sample_id."""
        return self._page.render(self._values, pictures=pictures).encode()

    def note_missing_pictures(self, n_shown: int) -> None:
        """Note how many pictures are not drawn, and why."""
        pictures = self._pictures
        if not pictures.n_wanted:
            return
        if not self._has_pixels:
            self.notes.append("this report has no pictures: the run was made from embeddings that don't say where their images lie")
        elif not n_shown:
            self.notes.append(f"this report has no pictures: none of {pictures.n_wanted:,} could be read: {shown(pictures.trouble)}")
        elif pictures.n_unread:
            self.notes.append(f"{pictures.n_unread:,} of {pictures.n_wanted:,} pictures could not be read: {shown(pictures.trouble)}")
        n_left_out = pictures.n_wanted - pictures.n_unread - n_shown
        if n_shown and n_left_out > 0:
            why = "because of the size of this file or because their tars are compressed"
            self.notes.append(f"{n_left_out:,} pictures were left out, {why}")


def stages(run: Run) -> list[Row]:
    """Seconds and rate of each stage, and the tables it wrote."""
    n = run.records["embed"].rows["metadata"]
    rows: list[Row] = []
    for name in STAGE_NAMES:
        record = run.records.get(name)
        if record is None:
            rows.append({"name": name, "seconds": None, "time": "not finished", "rate": None, "rows": "", "finished": "", "version": ""})
            continue
        n_images = n - record.summary.get("n_base_samples", 0) if name == "embed" else n
        rate = n_images / record.seconds if record.seconds else None
        tables = ", ".join(f"{table} {count:,}" for table, count in record.rows.items())
        finished = record.finished.replace("T", " ").removesuffix("+00:00")
        rows.append(
            {"name": name, "seconds": record.seconds, "time": seconds_text(record.seconds), "rate": rate, "rows": tables}
            | {"finished": finished, "version": record.dedup_version}
        )
    bars = figures.parts([("near", str(row["name"]), round(1000 * (row["seconds"] or 0.0))) for row in rows], is_stacked=False)
    return [row | {"part": bar} for row, bar in zip(rows, bars, strict=True)]


def settings(run: Run) -> list[Setting]:
    """The configuration of the run, without what its result does not depend on."""
    rows = []
    for name, value in values_of(run.config).items():
        key = KEYS[name]
        if name.partition(".")[0] not in ("engine", "extraction", "report"):
            rows.append(Setting(name, _shown(value), _shown(key.default), value == key.default, key.meaning))
    return rows


def _shown(value: Any) -> Text:
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, (list, bool)) else str(value)
    return cut(text, most=400) or Text("")


@cache
def _compiled() -> jinja2.Template:
    import jinja2

    loader = jinja2.FunctionLoader(_template)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": lambda n: f"{n:,}", "similarity": similarity_text, "rate": _rate}
    return environment.get_template("report.html")


def _template(name: str) -> str:
    return (files("dedup.report") / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:,.{0 if value >= 10 else 1}f}"
