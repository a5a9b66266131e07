"""The keep policy between two samples: which term of `keep.order_by` decided."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dedup.config.order import TIE, OrderTerm


def deciding_term(terms: Sequence[OrderTerm], one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[int, str, Any, Any]:
    """Which of two samples a policy prefers, and by which term.

    Parameters
    ----------
    terms : sequence of OrderTerm
        Of `keep.order_by`; nulls come last in either direction.
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
    >>> from dedup.config.order import parse_order
    >>> deciding_term(parse_order(["n_bytes desc"]), {"n_bytes": 5, "sample_id": 1}, {"n_bytes": 7, "sample_id": 0})
    (1, 'n_bytes desc', 5, 7)
    """
    for term in (*terms, TIE):
        values = [_value(row, term) for row in (one, other)]
        if values[0] == values[1]:
            continue
        if None in values:
            sign = 1 if values[0] is None else -1
        else:
            sign = -1 if (values[0] < values[1]) != term.is_descending else 1
        return sign, term.text, values[0], values[1]
    return 0, TIE.text, None, None


def _value(row: Mapping[str, Any], term: OrderTerm) -> Any:
    values = [row.get(column) for column in term.columns]
    return values[0] if len(values) == 1 else None if None in values else math.prod(values)
