"""Bringing batches to a schema, and carried columns into it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from dedup.errors import SchemaError

CARRIED_TYPES: Final = {
    "similarity": pa.float64(),
    "punsafe": pa.float64(),
    "pwatermark": pa.float64(),
    "aesthetic": pa.float64(),
    "original_width": pa.int64(),
    "original_height": pa.int64(),
}


def with_carried(schema: pa.Schema, carry: Sequence[str]) -> pa.Schema:
    """Append the carried columns to a schema that holds a sample per row.

    Parameters
    ----------
    schema : pyarrow.Schema
    carry : sequence of str
        Column names of `input.carry`; numbers where `CARRIED_TYPES` says so, strings otherwise. All nullable.

    Raises
    ------
    SchemaError
        If a carried column has the name of a column that is there already.
    """
    for name in carry:
        if name in schema.names:
            raise SchemaError(f"input.carry names '{name}', which every table has already; leave it out")
        meaning = {"meaning": "carried from the input", "unit": ""}
        schema = schema.append(pa.field(name, CARRIED_TYPES.get(name, pa.string()), metadata=meaning))
    return schema


def conform(batch: pa.RecordBatch | pa.Table, schema: pa.Schema) -> pa.Table:
    """Bring a batch to a schema: columns picked by name, cast by type, nulls checked.

    Parameters
    ----------
    batch : pyarrow.RecordBatch or pyarrow.Table
        Columns in any order; columns that the schema does not name are dropped.
    schema : pyarrow.Schema

    Returns
    -------
    pyarrow.Table
        Exactly the schema's columns, in its order.

    Raises
    ------
    SchemaError
        If a column is missing, can't be cast, or holds nulls where the schema allows none.
    """
    columns = []
    for field in schema:
        if field.name not in batch.schema.names:
            raise SchemaError(f"column '{field.name}' is missing; expected {schema.names}, found {batch.schema.names}")
        column = batch.column(field.name)
        try:
            column = column if column.type.equals(field.type) else column.cast(field.type)
        except pa.ArrowInvalid as error:
            raise SchemaError(f"column '{field.name}': expected {field.type}, found {column.type}: {error}") from error
        if column.null_count and not field.nullable:
            raise SchemaError(f"column '{field.name}' holds {column.null_count} nulls where none are allowed")
        columns.append(column)
    return pa.table(columns, schema=schema)
