"""Where each table lies under a run directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dedup import schemas
from dedup.contracts import Table
from dedup.storage.urls import join

CONFIG_FILE = "_config.json"  # what the run was made with
_SAMPLE_TABLES = {"metadata", "manifest", "duplicates", "excluded"}
_FOLDERS = {
    "metadata": ("embeddings/metadata", "metadata_*.parquet"),
    "rejected": ("embeddings/rejected", "rejected_*.parquet"),
    "representatives": ("index/representatives", ""),
    "exact": ("index/exact", ""),
    "assignments": ("index/assignments", ""),
}


@dataclass(frozen=True)
class RunLayout:
    """Tables and artefacts of one run directory.

    Parameters
    ----------
    run_dir : str
        A path or any fsspec URL.
    carry : sequence of str
        `input.carry`: further columns of every table that holds a sample per row.
    samples_dir : str
        The run directory whose samples these are, if it is another: that of a second source of candidates has vectors alone.
    """

    run_dir: str
    carry: Sequence[str] = ()
    samples_dir: str = ""

    def table(self, name: str) -> Table:
        """A table by the name it has in `dedup.schemas.TABLES`."""
        schema = schemas.TABLES[name]
        if name in _SAMPLE_TABLES:
            schema = schemas.with_carried(schema, self.carry)
        folder, pattern = _FOLDERS.get(name, (name, ""))
        home = self.samples_dir or self.run_dir if name in ("metadata", "rejected") else self.run_dir
        return Table(join(home, folder), schema, pattern or Table.pattern)

    def path(self, *parts: str) -> str:
        """A path under the run directory."""
        return join(self.run_dir, *parts)


def also_dir(run_dir: str, name: str) -> str:
    """Where the vectors and lists of a second source of candidates lie, as a run directory has them."""
    return join(run_dir, "also", name)
