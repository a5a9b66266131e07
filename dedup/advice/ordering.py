"""The keep policy between two samples: which term of `keep.order_by` decided."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

TIE = "sample_id asc"  # the last resort of every policy


def policy_columns(order_by: Sequence[str]) -> list[str]:
    """Columns of `metadata` that a policy compares.

    Examples
    --------
    >>> policy_columns(["width*height desc", "n_bytes desc", "sample_id"])
    ['width', 'height', 'n_bytes', 'sample_id']
    """
    return [column for term in order_by for column in term.split()[0].split("*")]


def deciding_term(order_by: Sequence[str], one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[int, str, Any, Any]:
    """Which of two samples a policy prefers, and by which term.

    Parameters
    ----------
    order_by : sequence of str
        Terms of `keep.order_by`; nulls come last in either direction.
    one, other : mapping
        Their values.

    Returns
    -------
    sign : int
        -1 if it prefers `one`, 1 if `other`, 0 if they are the same sample.
    term : str
    value, other_value : object
        What was compared.

    Examples
    --------
    >>> deciding_term(["n_bytes desc"], {"n_bytes": 5, "sample_id": 1}, {"n_bytes": 7, "sample_id": 0})
    (1, 'n_bytes desc', 5, 7)
    """
    for term in [*order_by, TIE]:
        name, _, direction = term.strip().partition(" ")
        values = [_value(row, name) for row in (one, other)]
        if values[0] == values[1]:
            continue
        if None in values:
            sign = 1 if values[0] is None else -1
        else:
            sign = -1 if (values[0] < values[1]) != (direction.strip().lower() == "desc") else 1
        return sign, " ".join(term.split()), values[0], values[1]
    return 0, TIE, None, None


def _value(row: Mapping[str, Any], name: str) -> Any:
    values = [row.get(column) for column in name.split("*")]
    return values[0] if len(values) == 1 else None if None in values else math.prod(values)
