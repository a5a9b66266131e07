"""The page: the template, and all that it is filled with."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from dedup.report import figures, making
from dedup.report.asking import Asker, Row
from dedup.report.cards import Card, Facts
from dedup.report.galleries import Galleries
from dedup.report.pairs import Pairs
from dedup.report.pictures import Pictures
from dedup.report.reported import ReportedRun
from dedup.report.texts import shown
from dedup.text import similarity_text

if TYPE_CHECKING:
    import jinja2

Excluded = list[tuple[figures.Reason, list[tuple[Card, Row]]]]


@dataclass(frozen=True)
class Gathered:
    """What a page shows of samples.

    Parameters
    ----------
    run : ReportedRun
    groups : Galleries
    pairs : Pairs
    excluded : list of (Reason, list of (Card, dict))
    facts : dict
        sample_id to what is shown of it.
    pictures : Pictures
    seed : int
        Of what was drawn at random.
    """

    run: ReportedRun
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
        self.notes = [*run.notes]
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
            "stages": making.stages(run), "settings": making.settings(run), "style": style, "script": script,
            "style_hash": _hash(style), "script_hash": _hash(script), "state": run.state, "notes": self.notes,
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
            self.notes.append("this report has no pictures: the run was made from embeddings, which don't say where their images lie")
        elif not n_shown:
            self.notes.append(f"this report has no pictures: none of {found.n_wanted:,} could be read: {shown(found.trouble)}")
        elif found.n_unread:
            self.notes.append(f"{found.n_unread:,} of {found.n_wanted:,} pictures could not be read: {shown(found.trouble)}")
        left = found.n_wanted - found.n_unread - n_shown
        if n_shown and left > 0:
            self.notes.append(f"{left:,} pictures were left out, for the size of this file or because their tars are compressed")


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
