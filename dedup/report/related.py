"""Templates and scenes in the report: pictures that are no copies, but share a layout, a ground or a place."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dedup.report import queries
from dedup.report.cards import Card, Gallery
from dedup.report.queries import TableReader
from dedup.runs.directory import Run

_N_SHOWN = 12  # templates, and scenes
_MEMBERS_SHOWN = 11  # of each

_QUERIES: Final = {
    "templates": (queries.TEMPLATES, queries.TEMPLATE_MEMBERS),
    "scenes": (queries.SCENES, queries.SCENE_MEMBERS),
}


@dataclass(frozen=True)
class Related:
    """A template or scene: some of its pictures, and where they agree."""

    gallery: Gallery
    mask: str  # PNG, base64; '' where there is none


@dataclass(frozen=True)
class AllRelated:
    """The largest of a run."""

    # n_templates, n_scenes: of the run
    templates: Sequence[Related] = ()
    scenes: Sequence[Related] = ()
    n_templates: int = 0
    n_scenes: int = 0


def all_related(reader: TableReader, run: Run) -> AllRelated:
    """The templates and scenes of most samples."""
    found = {name: _related(reader, run, name) for name in _QUERIES}
    n_of = {name: run.records["groups"].rows.get(f"{name[:-1]}_counts", 0) for name in _QUERIES}
    return AllRelated(found["templates"], found["scenes"], n_of["templates"], n_of["scenes"])


def _related(reader: TableReader, run: Run, name: str) -> list[Related]:
    if not run.records["groups"].rows.get(name):
        return []
    largest, members = _QUERIES[name]
    rows = reader.rows(largest, n=_N_SHOWN)
    shown: dict[int, list[int]] = {}
    for member in reader.rows(members, chosen=[row["label"] for row in rows], n=_MEMBERS_SHOWN):
        shown.setdefault(member["label"], []).append(member["component_id"])
    drawn = []
    for row in rows:
        others = [sample for sample in shown.get(row["label"], ()) if sample != row["example_id"]]
        cards = [Card(sample) for sample in [row["example_id"], *others][:_MEMBERS_SHOWN]]
        share = row["agreeing_share"]
        facts = [("samples", f"{row['n_samples']:,}"), ("different pictures", f"{row['n_components']:,}")]
        facts += [] if share is None else [("that two of them share", f"{share:.0%}")]
        mask = base64.b64encode(row["mask"]).decode() if row["mask"] else ""
        drawn.append(Related(Gallery(row["label"], row["n_samples"], facts, None, cards, n_cards=row["n_components"]), mask))
    return drawn
