"""Folders of published embeddings: which files belong together, and what their rows become."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dedup.errors import InputError
from dedup.storage.input.published import find_embeddings, read_embeddings


def write(folder, name, rows, **columns):
    """An array, and its metadata in a parquet of its own."""
    array, table = folder / name[0], folder / name[1]
    for path in (array, table):
        path.parent.mkdir(parents=True, exist_ok=True)
    np.save(array, rows)
    pq.write_table(pa.table(columns or {"key": [str(k) for k in range(len(rows))]}), table)


def rows_of(n, dim=4):
    return np.arange(1, n * dim + 1, dtype=np.float16).reshape(n, dim)


def test_numbers_match_however_they_are_padded(tmp_path):
    write(tmp_path, ("img_emb/img_emb_1.npy", "metadata/metadata_0001.parquet"), rows_of(3), caption=["b0", "b1", "b2"])
    write(tmp_path, ("img_emb/img_emb_00.npy", "metadata/metadata_0.parquet"), rows_of(2), caption=["a0", "a1"])
    np.save(tmp_path / "text_emb_0.npy", rows_of(2))  # of the captions: not ours
    files = find_embeddings(str(tmp_path))
    assert [(file.n_rows, file.dim) for file in files] == [(2, 4), (3, 4)]
    for file, letter in zip(files, "ab", strict=True):
        ((vectors, rows),) = read_embeddings(file)
        assert np.array_equal(vectors, rows_of(file.n_rows).astype(np.float32))
        assert rows["caption"].to_pylist() == [f"{letter}{k}" for k in range(file.n_rows)]


def test_laion_s_columns(tmp_path):
    """The columns of LAION-400M's and img2dataset's metadata, as pandas writes them: whole numbers with gaps are floats."""
    write(
        tmp_path, ("img_emb_0.npy", "metadata_0.parquet"), rows_of(3),
        image_path=["000000000", "000000001", None], TEXT=pa.array([b"ok", b"\xff bad", b"a\0b"], pa.binary()).view(pa.string()),
        URL=["u", " ", None], NSFW=["UNLIKELY", None, "NSFW"], similarity=[0.3, 0.4, None], LICENSE=["?", "", "cc"],
        original_width=[640.0, float("nan"), 10.0], original_height=[1, 2, 3],
    )  # fmt: skip
    (file,) = find_embeddings(str(tmp_path))
    assert not file.has_sha256
    assert not file.has_places
    ((_, rows),) = read_embeddings(file, ["similarity", "nsfw", "punsafe"])
    assert rows["key"].to_pylist() == ["000000000", "000000001", None]
    assert rows["caption"].to_pylist() == ["ok", "\ufffd bad", "a\ufffdb"]
    assert rows["url"].to_pylist() == ["u", None, None]
    assert rows["width"].to_pylist() == [640, None, 10]
    assert rows["height"].to_pylist() == [1, 2, 3]
    assert rows["similarity"].to_pylist() == [0.3, 0.4, None]
    assert rows["nsfw"].to_pylist() == ["UNLIKELY", None, "NSFW"]
    assert rows["punsafe"].to_pylist() == [None] * 3


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 3), pa.list_(pa.float16())], ids=str)
def test_nemo_curator_s_parquet(tmp_path, kind):
    values = [[1.0, 2.0, 3.0], None, [4.0, 5.0, 6.0]]
    if not pa.types.is_fixed_size_list(kind):
        values.append([1.0])
    table = pa.table({"image_id": [10, 11, 12, 13][: len(values)], "embedding": pa.array(values, kind)})
    pq.write_table(table, tmp_path / "part.0.parquet")
    (file,) = find_embeddings(str(tmp_path))
    assert (file.dim, file.n_rows, file.column) == (3, len(values), "embedding")
    ((vectors, rows),) = read_embeddings(file)
    assert rows["key"].to_pylist() == ["10", "11", "12", "13"][: len(values)]
    assert np.array_equal(vectors[[0, 2]], [[1, 2, 3], [4, 5, 6]])
    assert np.isnan(np.delete(vectors, [0, 2], axis=0)).all()


def test_plain_arrays_with_a_parquet_of_their_name(tmp_path):
    write(tmp_path, ("b.npy", "b.parquet"), rows_of(2), sha256=["f" * 64, "0" * 64], shard=["s"] * 2, byte_offset=[1, 2], n_bytes=[3, 4])
    write(tmp_path, ("sub/a.npy", "sub/a.parquet"), rows_of(1), id=[7])
    files = find_embeddings(str(tmp_path))
    assert [file.url.removeprefix(str(tmp_path)) for file in files] == ["/b.npy", "/sub/a.npy"]
    assert [(file.has_sha256, file.has_places) for file in files] == [(True, True), (False, False)]
    ((_, rows),) = read_embeddings(files[0])
    assert rows["key"].to_pylist() == ["0", "1"]
    assert rows.select(["shard", "byte_offset", "n_bytes"]).to_pylist() == [
        {"shard": "s", "byte_offset": 1, "n_bytes": 3},
        {"shard": "s", "byte_offset": 2, "n_bytes": 4},
    ]


def test_batches_do_not_matter(tmp_path):
    write(tmp_path, ("a.npy", "a.parquet"), rows_of(40), caption=[f"c{k}" for k in range(40)])
    batches = list(read_embeddings(find_embeddings(str(tmp_path))[0], batch_rows=7))
    assert len(batches) == 6
    assert np.array_equal(np.concatenate([vectors for vectors, _ in batches]), rows_of(40).astype(np.float32))
    assert pa.concat_tables([rows for _, rows in batches])["key"].to_pylist() == [str(k) for k in range(40)]


def _empty(folder):
    (folder / "readme.txt").write_text("")


def _no_metadata(folder):
    np.save(folder / "img_emb_3.npy", rows_of(2))


def _other_rows(folder):
    write(folder, ("a.npy", "a.parquet"), rows_of(2), key=["0", "1", "2"])


def _other_width(folder):
    write(folder, ("a.npy", "a.parquet"), rows_of(2))
    write(folder, ("b.npy", "b.parquet"), rows_of(2, dim=5))


def _objects(folder):
    write(folder, ("a.npy", "a.parquet"), np.array([["a", "b"]]), key=["0"])


def _no_vectors(folder):
    pq.write_table(pa.table({"key": ["a"]}), folder / "a.parquet")


def _broken(folder):
    write(folder, ("a.npy", "a.parquet"), rows_of(2))
    (folder / "a.npy").write_bytes(b"no array")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_empty, "holds no embeddings; expected img_emb/img_emb_0.npy with metadata/metadata_0.parquet"),
        (_no_metadata, "img_emb_3.npy has no metadata; expected metadata_3.parquet"),
        (_other_rows, "a.npy has 2 rows and .*a.parquet 3; expected a row of metadata for each vector"),
        (_other_width, "b.npy has vectors of width 5, .*a.npy of 4; expected one encoder"),
        (_objects, "expected float rows"),
        (_no_vectors, "found the columns key; expected one of embedding"),
        (_broken, "can't be read .*expected embeddings and their metadata"),
    ],
)
def test_what_can_t_be_used_is_named(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        find_embeddings(str(tmp_path))
    assert re.fullmatch(r"[^\n]*", str(caught.value))
