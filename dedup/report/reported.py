"""What a report says of the state of its run."""

from __future__ import annotations

from dedup.runs.directory import Run
from dedup.runs.record import HOMES, digest

_NEEDED = ("embed", "index", "pairs", "confirm", "groups", "manifest")


def open_reported(run_dir: str) -> Run:
    """The run that a report is about.

    Raises RunDirectoryError if there is no run, or its manifest is not written yet.
    """
    run = Run.open(run_dir)
    for stage in _NEEDED:
        run.finished(stage)
    return run


def state_of(run: Run) -> str:
    """Digest of all that the report is drawn from, so that one that is out of date is known."""
    return digest([[record.digest, record.finished] for record in run.records.values()])


def notes_on(run: Run) -> list[str]:
    """Stages that are missing, or were made from an earlier state of others."""
    notes, left = [], [stage for stage in HOMES if run.record(stage) is None]
    if left:
        parts = f"the stage {left[0]} is" if len(left) == 1 else f"the stages {' and '.join(left)} are"
        notes.append(f"{parts} not finished: what is drawn from there is left out; run dedup run … and then dedup report again")
    for stage, record in run.records.items():
        known = {name: other for name in record.inputs if name in HOMES and (other := run.record(name)) is not None}
        earlier = [name for name, other in known.items() if other.digest != record.inputs[name]]
        if earlier:
            notes.append(f"the stage {stage} was made from an earlier {earlier[0]}: figures may not fit each other; run dedup run … --redo")
    return notes
