"""The labels that scoring gave targets, for what is told by them: detectors, patches, lists of prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from dedup.attack.target_list import parquet_at
from dedup.errors import InputError
from dedup.storage.input.samples import one_line
from dedup.storage.urls import filesystem, join

_COLUMNS = ("target_id", "label", "duplication_count", "similarity")
_EXPECTED = "expected the --out of `dedup extraction score`"


def read_labels(scores: Sequence[str]) -> pa.Table:
    """`target_id, label, duplication_count, similarity` of each target that was scored, each once, in the order of the folders.

    Raises InputError if a folder can't be read, or its scoring was not finished.
    """
    tables = []
    for url in scores:
        try:
            table = parquet_at(url)
            if missing := [name for name in _COLUMNS if name not in table.schema.names]:
                raise InputError(f"{url} has no {f'column {missing[0]}' if table.files else 'parquet files'}; {_EXPECTED}")
            tables.append(table.to_table(columns=list(_COLUMNS)))
        except FileNotFoundError as error:
            raise InputError(f"{url} does not exist; {_EXPECTED}") from error
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{url} can't be read as scores: {one_line(error)}; {_EXPECTED}") from error
        fs, path = filesystem(url)
        if fs.isdir(path) and not fs.exists(join(path, "_summary.json")):
            raise InputError(f"{url} holds scores of some targets only; run the same `dedup extraction score` again, which does the rest")
    table = pa.concat_tables(tables)
    _, first = np.unique(np.array(table["target_id"].to_pylist(), dtype=str), return_index=True)
    return table.take(np.sort(first))


def decades(last: int) -> list[tuple[int, int]]:
    """The first and last number of each decade up to one.

    >>> decades(120)
    [(1, 9), (10, 99), (100, 999)]
    """
    found, least = [], 1
    while least <= last:
        found.append((least, 10 * least - 1))
        least *= 10
    return found
