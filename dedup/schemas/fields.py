"""Columns that many tables have, and how one is written down: the field metadata holds unit and meaning."""

from __future__ import annotations

from typing import Final

import pyarrow as pa


def field(name: str, kind: pa.DataType, meaning: str, *, unit: str = "", nullable: bool = False) -> pa.Field:
    """A column with its meaning, for a person, and its unit."""
    return pa.field(name, kind, nullable=nullable, metadata={"meaning": meaning, "unit": unit})


SAMPLE_ID = field("sample_id", pa.int64(), "number of the sample in the run: partition << 32 | row of the partition")
ROW_MASK: Final = (1 << 32) - 1  # what is left of a sample_id is the row of its partition
COMPONENT_ID = field("component_id", pa.int64(), "smallest sample_id of the group of copies; a unique sample's own sample_id")
SHARD = field(
    "shard",
    pa.string(),
    "URL of the tar that holds the sample, or of the file its precomputed embedding came from; a folder's URL ends with '/'",
)
KEY = field(
    "key", pa.string(), "the sample's key: in a tar, the member name up to the first dot of its base name; in a folder, the relative path"
)
CAPTION = field("caption", pa.string(), "the caption, with invalid UTF-8 replaced; null if there is none", nullable=True)
URL = field("url", pa.string(), "the image's address on the web, as the shard gives it", nullable=True)
BYTE_OFFSET = field(
    "byte_offset",
    pa.int64(),
    "where the image's bytes start in the tar; null in a compressed tar, or if not known",
    unit="bytes",
    nullable=True,
)
N_BYTES = field("n_bytes", pa.int64(), "size of the encoded image; 0 = not known", unit="bytes")
COUNT = field("duplication_count", pa.int64(), "number of samples in the group of copies, including the keeper; 1 = unique")
TARGET_ID = field("target_id", pa.string(), "target_id in the table targets")
