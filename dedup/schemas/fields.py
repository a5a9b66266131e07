"""Columns that many tables share, the helper that defines a column with its meaning and unit, and `conform`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from dedup.errors import SchemaError

BOOL, TEXT, TEXTS = pa.bool_(), pa.string(), pa.list_(pa.string())
INT32, INT64, FLOAT32, FLOAT64 = pa.int32(), pa.int64(), pa.float32(), pa.float64()
PIXEL_DISTANCE: Final = "distance of the pixels: how much the parts that agree least differ, 0 to 1"


def field(name: str, kind: pa.DataType, meaning: str, *, unit: str = "", nullable: bool = False) -> pa.Field:
    """A column with its meaning, for documentation, and its unit."""
    return pa.field(name, kind, nullable=nullable, metadata={"meaning": meaning, "unit": unit})


def schema(*columns: pa.Field) -> pa.Schema:
    """The schema of a table."""
    return pa.schema(columns)


CARRIED_TYPES: Final = {
    "similarity": FLOAT64,
    "punsafe": FLOAT64,
    "pwatermark": FLOAT64,
    "aesthetic": FLOAT64,
    "original_width": INT64,
    "original_height": INT64,
}

SAMPLE_ID = field("sample_id", INT64, "number of the sample in the run: partition << 32 | row of the partition")
ROW_MASK: Final = (1 << 32) - 1  # the bits of a sample_id that hold the row of its partition
COMPONENT_ID = field("component_id", INT64, "smallest sample_id of the group of copies; a unique sample's own sample_id")

SHARD = field(
    "shard", TEXT, "URL of the tar, parquet or Arrow file that holds the sample, or its precomputed embedding; a folder's URL ends with '/'"
)

KEY = field(
    "key",
    TEXT,
    "the sample's key: in a tar, the member name up to the first dot of its base name; in a folder, the relative path; in a parquet or "
    "Arrow file, its column key or __key__, else the number of the row",
)
MEMBER = field(
    "member",
    TEXT,
    "which image of the sample: what follows the key in the name of its member, in lower case; in a parquet or Arrow file the column, with a "
    "number in a list; null in a folder, or if not known",
    nullable=True,
)
N_IMAGES = field("n_images", INT32, "images of the sample, rejected ones included; each has a row of its own")
FIRST_IMAGE_ID = field("first_image_id", INT64, "sample_id of the first row of the same sample; its own where the sample has one image")
CAPTION = field("caption", TEXT, "the first of the captions, with what no encoding explains replaced; null if there is none", nullable=True)
CAPTIONS = field("captions", TEXTS, "all captions of the image, in order, without repetitions; null if there is none", nullable=True)
URL = field("url", TEXT, "the image's address on the web, as the shard gives it", nullable=True)

BYTE_OFFSET = field(
    "byte_offset",
    INT64,
    "where the image's bytes start in the tar; in a parquet or Arrow file the number of its row; null in a compressed tar, or if not known",
    unit="bytes",
    nullable=True,
)

FILE = field("file", TEXT, "the file of rows it was read from: embeddings, parquet or Arrow; null in tars and folders", nullable=True)
ROW = field("row", INT64, "number of its row in `file`, from 0, rejected rows counted; null in tars and folders", nullable=True)
N_BYTES = field("n_bytes", INT64, "size of the encoded image; 0 = not known", unit="bytes")
COUNT = field("duplication_count", INT64, "number of samples in the group of copies, including the keeper; 1 = unique")
TARGET_ID = field("target_id", TEXT, "target_id in the table targets")


def with_carried(schema: pa.Schema, carry: Sequence[str]) -> pa.Schema:
    """Append carried columns to the schema of a table of samples.

    `carry`: names from `input.carry`; of the types in `CARRIED_TYPES`, otherwise strings; all nullable.
    Raises SchemaError if a carried column has the name of an existing one.
    """
    for name in carry:
        if name in schema.names:
            raise SchemaError(f"input.carry names '{name}', which every table has already; leave it out")
        meaning = {"meaning": "carried from the input", "unit": ""}
        schema = schema.append(pa.field(name, CARRIED_TYPES.get(name, TEXT), metadata=meaning))
    return schema


def conform(batch: pa.RecordBatch | pa.Table, schema: pa.Schema) -> pa.Table:
    """Bring a batch to a schema: columns picked by name, cast by type, nulls checked.

    `batch`: columns in any order; those not in the schema are dropped.
    Returns exactly the schema's columns, in its order.
    Raises SchemaError if a column is missing, can't be cast, or holds nulls where the schema allows none.
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
