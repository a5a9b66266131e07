"""The page: the template, and all that it is filled with."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from dedup.config.keys import KEYS, values_of
from dedup.report import figures
from dedup.report.cards import Card, Facts, Pictures
from dedup.report.figures import parts
from dedup.report.galleries import Galleries, Pairs
from dedup.report.queries import Asker, Row
from dedup.report.reported import notes_on, state_of
from dedup.report.texts import Text, cut, shown
from dedup.runs.directory import Run
from dedup.runs.record import HOMES
from dedup.text import seconds_text, similarity_text

if TYPE_CHECKING:
    import jinja2


def stages(run: Run) -> list[Row]:
    """Seconds and rate of each stage, and what it wrote."""
    n = run.records["embed"].rows["metadata"]
    rows: list[Row] = []
    for name in HOMES:
        record = run.records.get(name)
        if record is None:
            rows.append({"name": name, "seconds": None, "time": "not finished", "rate": None, "rows": "", "finished": "", "version": ""})
            continue
        own = n - record.summary.get("n_base_samples", 0) if name == "embed" else n
        rate = own / record.seconds if record.seconds else None
        tables = ", ".join(f"{table} {count:,}" for table, count in record.rows.items())
        finished = record.finished.replace("T", " ").removesuffix("+00:00")
        rows.append(
            {"name": name, "seconds": record.seconds, "time": seconds_text(record.seconds), "rate": rate, "rows": tables}
            | {"finished": finished, "version": record.dedup_version}
        )
    bars = parts([("near", str(row["name"]), round(1000 * (row["seconds"] or 0.0))) for row in rows], is_stacked=False)
    return [row | {"part": bar} for row, bar in zip(rows, bars, strict=True)]


@dataclass(frozen=True)
class Setting:
    """A configuration key with its value."""

    key: str
    value: Text
    default: Text
    is_default: bool
    means: str


def settings(run: Run) -> list[Setting]:
    """The configuration of the run; how it was carried out (`engine`) is no part of what a run keeps."""
    found = []
    for name, value in values_of(run.config).items():
        key = KEYS[name]
        if name.partition(".")[0] not in ("engine", "extraction", "report"):
            found.append(Setting(name, _shown(value), _shown(key.default), value == key.default, key.meaning))
    return found


def _shown(value: Any) -> Text:
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, (list, bool)) else str(value)
    return cut(text, most=400) or Text("")


Excluded = list[tuple[figures.Reason, list[tuple[Card, Row]]]]


@dataclass(frozen=True)
class Gathered:
    """What a page shows of samples.

    Parameters
    ----------
    run : Run
    groups : Galleries
    pairs : Pairs
    excluded : list of (Reason, list of (Card, dict))
    facts : dict
        sample_id to what is shown of it.
    pictures : Pictures
    seed : int
        Of what was drawn at random.
    """

    run: Run
    groups: Galleries
    pairs: Pairs
    excluded: Excluded
    facts: dict[int, Facts]
    pictures: Pictures
    seed: int


class Page:
    """The template and what it is filled with.

    Parameters
    ----------
    gathered : Gathered
    asker : Asker
        Who is asked for the figures.
    """

    def __init__(self, gathered: Gathered, asker: Asker) -> None:
        run, found = gathered.run, gathered.pairs
        self._pictures, self._has_pixels = gathered.pictures, run.has_pixels
        troubled, broken = figures.broken_shards(asker)
        self.notes = [*notes_on(run)]
        if troubled:
            self.notes.append(f"of the shards {', '.join(f'{n:,} were {status}' for status, n in troubled.items())}: see Rejected")
        sized, size_rows = figures.sizes(run) if "statistics" in run.records else (None, [])
        counts = figures.bins(asker)
        looked, sampled = figures.similarities(counts, run, found.sample)
        measured, n_unmeasured = figures.distances(counts, run)
        dropped, ways = figures.kinds(asker, run)
        n_refused = sum(reason.part.n for reason, _ in found.refused)
        style, script = _template("report.css"), _template("report.js")
        self._values: dict[str, Any] = {
            "run": run, "groups": gathered.groups, "pairs": found, "excluded": gathered.excluded, "facts": gathered.facts,
            "seed": gathered.seed, "accounts": figures.accounts(run), "tiles": figures.tiles(run, n_refused), "sizes": sized,
            "size_rows": size_rows,
            "looked": looked, "sampled": sampled, "distances": measured, "n_unmeasured": n_unmeasured, "dropped": dropped, "ways": ways,
            "rejected": figures.rejected(asker), "broken_shards": broken,
            "captions": figures.captions(asker) if "statistics" in run.records else [],
            "stages": stages(run), "settings": settings(run), "style": style, "script": script,
            "style_hash": _hash(style), "script_hash": _hash(script), "state": state_of(run), "notes": self.notes,
            "finished": max(record.finished for record in run.records.values()).replace("T", " ").partition("+")[0],
            "made": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M"),
        }  # fmt: skip
        self._page = _compiled()

    def render(self, pictures: dict[int, str]) -> bytes:
        """The page with these pictures, base64 by sample_id."""
        return self._page.render(self._values, pictures=pictures).encode()

    def say_pictures(self, n_shown: int) -> None:
        """Note what is not drawn, and why."""
        found = self._pictures
        if not found.n_wanted:
            return
        if not self._has_pixels:
            self.notes.append("this report has no pictures: the run was made from embeddings that don't say where their images lie")
        elif not n_shown:
            self.notes.append(f"this report has no pictures: none of {found.n_wanted:,} could be read: {shown(found.trouble)}")
        elif found.n_unread:
            self.notes.append(f"{found.n_unread:,} of {found.n_wanted:,} pictures could not be read: {shown(found.trouble)}")
        left = found.n_wanted - found.n_unread - n_shown
        if n_shown and left > 0:
            self.notes.append(f"{left:,} pictures were left out, because of the size of this file or because their tars are compressed")


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
