"""The accounts of captions and carried columns: of a partition, of a run, and in words."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dedup.contracts import JsonDict
from dedup.storage.input.records import aliases
from dedup.storage.input.samples import LateMembers, TextFacts, TextSources

_COLUMNS_KEPT = 500
_SUGGESTED = 5
_LISTED = 20
_NUMBERS = ("n_samples", "n_captions", "n_several", "n_damaged", "n_broken_json", "n_unread", "n_rows")
_COUNTERS = ("by_source", "guessed", "carried", "join")
_JOIN = ("n_joined_rows", "n_images", "n_joined_images", "n_ambiguous_images")


@dataclass
class TextCounts:
    """Samples by where their captions come from and how they were read."""

    n_samples: int = 0
    n_captions: int = 0  # of all samples together
    n_several: int = 0  # samples with more than one
    n_damaged: int = 0  # samples with text of which something can't be decoded
    n_broken_json: int = 0  # members
    n_unread: int = 0  # members that are too large, or vanished
    by_source: Counter[str] = field(default_factory=Counter)  # samples with a caption, by what the first comes from
    guessed: Counter[str] = field(default_factory=Counter)  # samples by the encodings that were guessed
    carried: Counter[str] = field(default_factory=Counter)  # samples with a value, by carried column
    columns: set[str] = field(default_factory=set)  # names that were found in the input; none are kept without `input.carry`
    join: Counter[str] = field(default_factory=Counter)  # of the table or the parquet beside the shards; empty without one
    n_rows: int = 0  # of the parquet beside the shards
    tables: dict[str, int] = field(default_factory=dict)  # rows of tables that partitions may share, by URL
    examples: dict[str, str] = field(default_factory=dict)  # of what could not be read, by the name of its count: shard and key

    def add(self, row: Mapping[str, Any], facts: TextFacts, carry: Sequence[str]) -> None:
        """Count a sample that is written; `row`: its row of `metadata`."""
        captions = row["captions"] or ()
        self.n_samples += 1
        self.n_captions += len(captions)
        self.n_several += len(captions) > 1
        self._add_unread(row, facts)
        self.by_source.update([facts.source] if facts.source else [])
        self.guessed.update(facts.guessed)
        self.carried.update(name for name in carry if row.get(name) is not None)

    def _add_unread(self, row: Mapping[str, Any], facts: TextFacts) -> None:
        counts = {"n_damaged": int(facts.is_damaged), "n_broken_json": facts.n_broken, "n_unread": facts.n_unread}
        for name, count in counts.items():
            if count:
                setattr(self, name, getattr(self, name) + count)
                self.examples.setdefault(name, f"{row['shard']} {row['key']}")

    def add_late(self, row: Mapping[str, Any], late: LateMembers, carry: Sequence[str]) -> None:
        """Count what came late of a sample that is counted already; `row`: its row of `metadata` so far."""
        n_before, n_after = len(row["captions"] or ()), len({*(row["captions"] or ()), *late.captions})
        self.n_captions += n_after - n_before
        self.n_several += (n_after > 1) - (n_before > 1)
        self._add_unread(row, late.text)
        self.by_source.update([late.text.source] if late.text.source and not n_before else [])
        self.guessed.update(late.text.guessed)
        self.carried.update(name for name in carry if row.get(name) is None and late.carried.get(name) is not None)

    def add_table(self, table: pa.Table, carry: Sequence[str]) -> None:
        """Count the samples of published embeddings."""
        lengths = pc.list_value_length(table["captions"])
        n_with = len(lengths) - lengths.null_count
        self.n_samples += table.num_rows
        self.n_captions += pc.sum(lengths).as_py() or 0
        self.n_several += pc.sum(pc.greater(lengths, 1)).as_py() or 0
        self.by_source.update({"table": n_with} if n_with else {})
        self.carried.update({name: n for name in carry if (n := table.num_rows - table[name].null_count)})

    def add_sources(self, found: TextSources) -> None:
        """Count what a shard or part of a folder held besides its samples."""
        self.columns |= found.names
        if found.n_images:
            self.n_rows += found.n_rows
            self.tables |= found.tables
            self.join.update({name: getattr(found, name) for name in _JOIN})

    def as_dict(self) -> JsonDict:
        """As JSON takes it, in a fixed order."""
        counts: JsonDict = {name: getattr(self, name) for name in _NUMBERS}
        for name in _COUNTERS:
            counts[name] = dict(sorted(getattr(self, name).items()))
        counts |= {"examples": dict(sorted(self.examples.items()))} if self.examples else {}
        return counts | {"tables": dict(sorted(self.tables.items())), "columns": sorted(self.columns)[:_COLUMNS_KEPT]}


def merged(parts: Iterable[JsonDict]) -> JsonDict:
    """The counts of several partitions together."""
    whole = TextCounts()
    for part in parts:
        for name in _NUMBERS:
            setattr(whole, name, getattr(whole, name) + part.get(name, 0))
        for name in _COUNTERS:
            getattr(whole, name).update(part.get(name, {}))
        whole.tables |= part.get("tables", {})
        whole.examples = part.get("examples", {}) | whole.examples
        whole.columns.update(part.get("columns", []))
    return whole.as_dict()


def missing_columns(texts: JsonDict, carry: Sequence[str]) -> list[str]:
    """Carried columns that nothing in the input has, by any of their spellings."""
    found = {*texts["columns"], *texts["carried"]}
    return [name for name in carry if not found.intersection((name, *aliases(name)))]


def refusal(missing: Sequence[str], columns: Iterable[str], where: str) -> str:
    """What is wrong with `input.carry`, with the names that are most like the first missing one.

    `where`: where it was looked for, as in the example.

    Examples
    --------
    >>> refusal(["punsfe"], ["punsafe", "url"], "is no column of c.csv")
    "input.carry names 'punsfe', which is no column of c.csv; expected one of punsafe, url"
    """
    names = sorted(set(columns))
    near = difflib.get_close_matches(missing[0], names, _SUGGESTED, cutoff=0.5)
    listed = [*near, *(name for name in names if name not in near)][:_LISTED]
    more = ", …" if len(names) > len(listed) else ""
    expected = f"expected one of {', '.join(listed)}{more}" if listed else "found no columns at all"
    return f"input.carry names {', '.join(map(repr, missing))}, which {where}; {expected}"
