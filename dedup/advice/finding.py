"""Finding the sample a person means: by key, shard and key, sample_id, address or digest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dedup.advice.explanation import Rejection
from dedup.errors import ConfigError, InputError, RunDirectoryError
from dedup.storage.layout import RunLayout
from dedup.storage.tables import dataset, read_table

_SHOWN = 10
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Found:
    """A sample: its sample_id, None where it was rejected, and rows of `rejected` with its shard and key."""

    sample_id: int | None
    rejections: tuple[Rejection, ...]


def find_sample(layout: RunLayout, key: str, shard: str = "", sample_id: int | None = None) -> Found:
    """The one sample that is meant.

    Parameters
    ----------
    layout : RunLayout
    key : str
        A sample's key; SHARD/KEY, where the shard may be its name alone; its url, or the SHA-256 of its image bytes.
    shard : str
        URL of its shard, or the end of it.
    sample_id : int, optional
        Instead of a key.

    Raises
    ------
    InputError
        If no sample, or more than one, is meant.
    """
    if sample_id is not None:
        row = read_samples(layout, [sample_id], ["sample_id", "shard", "key"]).get(sample_id)
        if row is None:
            raise InputError(f"{layout.run_dir} has no sample {sample_id}; sample_ids stand in its embeddings/metadata/")
        return Found(sample_id, _rejections(layout, [row["key"]], lambda other, _: other == row["shard"]))
    if not key:
        raise ConfigError("no sample is named; expected KEY, SHARD/KEY or --sample-id")
    rests = [key, *(key[place + 1 :] for place, letter in enumerate(key) if letter == "/" and key[place + 1 :])]

    def is_meant(row_shard: str, row_key: str) -> bool:
        left = key[: len(key) - len(row_key)].rstrip("/")
        return (not left or _is_shard(row_shard, left)) and (not shard or _is_shard(row_shard, shard))

    rows = [row for row in _metadata(layout, pc.field("key").isin(rests)) if is_meant(row["shard"], row["key"])]
    rejected = _rejections(layout, rests, is_meant)
    # the whole text as a key goes before a part of it
    longest = max((len(row_key) for row_key in [*(row["key"] for row in rows), *(row.key for row in rejected)]), default=0)
    rows = [row for row in rows if len(row["key"]) == longest]
    rejected = tuple(row for row in rejected if len(row.key) == longest)
    if not rows and not rejected:
        return Found(_by_content(layout, key, shard), ())
    shards = sorted({row["shard"] for row in rows} | {row.shard for row in rejected})
    if len(shards) > 1:
        raise InputError(f"{len(shards)} shards have a sample {key}: {_listed(shards)}; say which with --shard (shard= in Python)")
    if len(rows) > 1:
        raise InputError(f"{len(rows)} samples are {key} in {shards[0]}: {_listed(row['sample_id'] for row in rows)}; give --sample-id")
    return Found(rows[0]["sample_id"] if rows else None, rejected)


def read_samples(layout: RunLayout, sample_ids: Iterable[int], columns: Sequence[str]) -> dict[int, dict[str, Any]]:
    """Rows of `metadata` by sample_id, with at least that column; of ids that are none there is no row.

    Only files of partitions that are asked for are opened.
    """
    by_partition: dict[int, list[int]] = {}
    for sample_id in set(sample_ids):
        by_partition.setdefault(sample_id >> 32, []).append(sample_id)
    wanted = list(dict.fromkeys(["sample_id", *columns]))
    found: dict[int, dict[str, Any]] = {}
    for partition, ids in sorted(by_partition.items()):
        table = replace(layout.table("metadata"), pattern=f"metadata_{partition:05d}.parquet")
        try:
            rows = dataset(table).to_table(columns=wanted, filter=pc.field("sample_id").isin(ids))
        except RunDirectoryError:  # no such partition
            continue
        found |= {row["sample_id"]: row for row in rows.to_pylist()}
    return found


def _metadata(layout: RunLayout, wanted: pc.Expression) -> list[dict[str, Any]]:
    columns = ["sample_id", "shard", "key"]
    batches = dataset(layout.table("metadata")).to_batches(columns=columns, filter=wanted, batch_size=_BATCH_ROWS)
    return [row for batch in batches for row in batch.to_pylist()]


def _rejections(layout: RunLayout, keys: Sequence[str], is_meant: Any) -> tuple[Rejection, ...]:
    rows = dataset(layout.table("rejected")).to_table(filter=pc.field("key").isin(list(keys))).to_pylist()
    return tuple(Rejection(**row) for row in rows if is_meant(row["shard"], row["key"]))


def _is_shard(shard: str, text: str) -> bool:
    """Whether a text is a shard's URL, or the end of it from a slash on."""
    shard, text = shard.rstrip("/"), text.rstrip("/").removeprefix("./")
    return shard == text or shard.endswith(f"/{text}")


def _by_content(layout: RunLayout, key: str, shard: str) -> int:
    for is_asked, column, value in (("://" in key, "url", key), (_SHA256.fullmatch(key), "sha256", key.lower())):
        if not is_asked:
            continue
        rows = [row for row in _metadata(layout, pc.field(column) == value) if not shard or _is_shard(row["shard"], shard)]
        if len(rows) > 1:
            named = _listed(f"{row['key']} in {row['shard']} ({row['sample_id']})" for row in rows)
            raise InputError(f"{len(rows)} samples have the {column} {key}: {named}; say which with --sample-id")
        if rows:
            sample_id: int = rows[0]["sample_id"]
            return sample_id
    raise InputError(_not_found(layout, key, shard))


def _not_found(layout: RunLayout, key: str, shard: str) -> str:
    where = f" in {shard}" if shard else ""
    text = f"{layout.run_dir} has no sample {key}{where}: it was neither embedded nor rejected"
    partitions = read_table(layout.table("partitions"), ["shard", "status", "error"])
    if shard:
        known = [row for row in partitions.to_pylist() if _is_shard(row["shard"].partition("#")[0], shard)]
        if not known:
            return f"{text}; that shard is none of the {len(partitions):,} of the run: see its partitions/ table"
        broken = [row for row in known if row["status"] != "ok"]
        if broken:
            return f"{text}; the shard was {broken[0]['status']}: {broken[0]['error']}"
    n_broken = pc.sum(pc.not_equal(partitions["status"], "ok").cast(pa.int64())).as_py() or 0
    tail = f" ({n_broken:,} shards could not be read whole: partitions/ says which)" if n_broken else ""
    return f"{text}; a key is a member's name in the tar up to the first dot of its base name, in a folder the relative path{tail}"


def _listed(names: Iterable[object]) -> str:
    texts = [str(name) for name in names]
    more = f", and {len(texts) - _SHOWN:,} more" if len(texts) > _SHOWN else ""
    return f"{', '.join(texts[:_SHOWN])}{more}"
