"""Tables that are written in parts, each by one task: what is done is known by its file, what it was made of by a record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import pyarrow.compute as pc

from dedup.contracts import JsonDict, Table
from dedup.errors import RunDirectoryError
from dedup.runs.record import digest
from dedup.storage.atomic import write_json
from dedup.storage.tables import clear, dataset
from dedup.storage.urls import filesystem, join, read_json


class _Numbered(Protocol):
    @property
    def number(self) -> int:
        """Place of the part in the table."""


Part = TypeVar("Part", bound=_Numbered)


def identity_of(output: Table, made_of: JsonDict) -> dict[str, str]:
    """What a table is made of, as digests.

    `made_of`: a word for each thing, and the thing itself, a JSON value.
    """
    return {name: digest(value) for name, value in {**made_of, "columns": output.schema.names}.items()}


def refuse_other(output: Table, identity: dict[str, str]) -> None:
    """Stop if the folder of a table holds one that was made of something else.

    Raises RunDirectoryError if it does.
    """
    recorded = read_json(join(output.path, _RECORD))
    if recorded is not None and recorded != identity:
        changed = [name for name in identity if recorded.get(name) != identity[name]]
        text = f"{output.path} holds results of other {' and '.join(changed)}"
        raise RunDirectoryError(f"{text}; choose another --out, or delete that folder")


def begin(output: Table, identity: dict[str, str]) -> None:
    """Record what a table is made of; one that is made of the same goes on. `refuse_other` comes first."""
    if read_json(join(output.path, _RECORD)) is None:
        clear(output)
        write_json(join(output.path, _RECORD), identity)


_RECORD = "_made_of.json"


def rows_by_number(table: Table | None, first: int, n: int) -> list[list[JsonDict]]:
    """The rows of each of `n` consecutive targets, the first of them at place `first` of the list: those with its `number`."""
    rows: list[list[JsonDict]] = [[] for _ in range(n)]
    if table is not None:
        number = pc.field("number")
        for row in dataset(table).to_table(filter=(number >= first) & (number < first + n)).to_pylist():
            rows[row["number"] - first].append(row)
    return rows


def part_url(output: Table, number: int) -> str:
    """The file of a part; its presence means that the part is done."""
    return join(output.path, f"part-{number:05d}.parquet")


def missing_parts(tasks: Sequence[Part], output: Table) -> list[Part]:
    """The tasks whose part is not there yet."""
    fs = filesystem(output.path)[0]
    return [task for task in tasks if not fs.exists(filesystem(part_url(output, task.number))[1])]
