"""What a tar that is not sorted says of a sample after its first images: joined once the partition is written."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dedup.config import Config
from dedup.contracts import JsonDict
from dedup.encoders.encoder import Encoder
from dedup.errors import RunDirectoryError
from dedup.numerics.similarity import exact_similarity
from dedup.runs.directory import Run
from dedup.runs.vectors import embedding_path
from dedup.stages.embed.texts import TextCounts
from dedup.storage.arrays import read_rows
from dedup.storage.input.samples import LateMembers
from dedup.storage.tables import FileWriter
from dedup.storage.urls import filesystem, join, read_bytes

LateImages = Mapping[tuple[str, str | None], LateMembers]  # by key and member


def join_late(
    run: Run, partition: int, late: Mapping[str, LateImages], counts: TextCounts, config: Config, encoder: Encoder
) -> dict[str, int]:
    """Write the metadata of a partition anew, with the captions and the numbers of images that came late.

    `late`: by shard, what came late of its images.
    `counts`: gains what the late texts add.
    Returns the file's name under `embeddings/` with its size in bytes.
    """
    table = run.table("metadata")
    name = f"metadata_{partition:05d}.parquet"
    url = join(table.path, name)
    data = read_bytes(url)
    if data is None:
        raise RunDirectoryError(f"{url} is gone; was something else writing into this run directory?")
    rows = pq.read_table(io.BytesIO(data), schema=table.schema).to_pylist()
    firsts: dict[tuple[str, str], JsonDict] = {}
    captioned = []
    for number, row in enumerate(rows):
        members = late.get(row["shard"], {}).get((row["key"], row["member"]))
        if members is None:
            continue
        first = firsts.setdefault((row["shard"], row["key"]), row)
        if members.shares and first is not row:
            members = _shared(members, first, config.input.carry)
        if row["caption"] is None and members.captions:
            captioned.append(number)
        counts.add_late(row, members, config.input.carry)
        _join(row, members, first["sample_id"])
    if config.embed.text and captioned:
        _compare(rows, captioned, encoder, embedding_path(run.path("embeddings"), partition))
    writer = FileWriter(url, table.schema)
    writer.write(pa.Table.from_pylist(rows, schema=table.schema))
    writer.close()
    fs, path = filesystem(url)
    return {f"metadata/{name}": int(fs.size(path))}


def _shared(members: LateMembers, first: JsonDict, carry: Sequence[str]) -> LateMembers:
    """What came late of an image, with what the row of its sample's first image says of both."""
    carried = {name: first[name] if members.carried.get(name) is None else members.carried[name] for name in carry}
    captions = tuple(dict.fromkeys((*(first["captions"] or ()), *members.captions)))
    text = members.text if members.text.source or not captions else replace(members.text, source="sample")
    return replace(members, captions=captions, url=first["url"] if members.url is None else members.url, carried=carried, text=text)


def _join(row: JsonDict, members: LateMembers, first_id: int) -> None:
    row["captions"] = [*dict.fromkeys((*(row["captions"] or ()), *members.captions))] or None
    values = {"caption": next(iter(members.captions), None), "url": members.url, **members.carried}
    row |= {name: value for name, value in values.items() if row[name] is None}
    if members.n_images:
        row |= {"n_images": members.n_images, "first_image_id": first_id}


def _compare(rows: list[JsonDict], captioned: list[int], encoder: Encoder, vectors_url: str) -> None:
    """Fill in the similarity of images to captions that came late."""
    texts = encoder.encode_captions([rows[number]["caption"] for number in captioned])
    if texts is None:
        return
    vectors = np.concatenate([read_rows(vectors_url, number, number + 1) for number in captioned])
    for number, similarity in zip(captioned, exact_similarity(vectors, texts).tolist(), strict=True):
        rows[number]["caption_similarity"] = similarity
