"""Questions to the tables of a run, on the engine at hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dedup.contracts import Engine, Table
from dedup.report.queries import CHOSEN, WANTED, Question
from dedup.storage.layout import RunLayout

Row = dict[str, Any]


@dataclass(frozen=True)
class Asker:
    """Asks for rows; answers are small, since every question has a limit.

    Parameters
    ----------
    engine : Engine
    layout : RunLayout
    """

    engine: Engine
    layout: RunLayout

    def rows(self, question: Question, *, chosen: Iterable[int] = (), wanted: Iterable[int] = (), **numbers: float) -> list[Row]:
        """The answer.

        Parameters
        ----------
        question : Question
        chosen : iterable of int
            The table `chosen`: component_ids that the question is about.
        wanted : iterable of int
            The table `wanted`: sample_ids.
        numbers : float
            What stands in braces in the query.
        """
        tables: dict[str, Table | pa.Table] = {name: self.layout.table(name) for name in question.tables}
        if " chosen" in question.sql:
            tables["chosen"] = pa.table({"component_id": sorted(set(chosen))}, schema=CHOSEN)
        if " wanted" in question.sql:
            tables["wanted"] = pa.table({"sample_id": sorted(set(wanted))}, schema=WANTED)
        if any(isinstance(table, pa.Table) and not table.num_rows for table in tables.values()):
            return []
        batches = self.engine.sql(question.sql.format(**numbers), tables, question.schema)
        return [row for batch in batches for row in batch.to_pylist()]
