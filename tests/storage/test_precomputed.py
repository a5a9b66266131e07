"""Folders of published embeddings: which files belong together, and what their rows become."""

import csv
import gzip
import re
from collections import Counter

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dedup.errors import ConfigError, InputError
from dedup.storage.input.bare_arrays import raw_rows
from dedup.storage.input.content import content_stamp
from dedup.storage.input.published import find_embeddings, n_rows_of
from dedup.storage.input.published_rows import read_embeddings
from dedup.storage.input.sources import fingerprint


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
    write(folder, ("img_emb_2.npy", "metadata_2.parquet"), rows_of(2))


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


def test_subsets_that_number_their_files_from_0_keep_their_own_tables(tmp_path):
    """As LAION-5B is published: each subset has img_emb/ and metadata/, all numbered alike."""
    for letter, subset in zip("abc", ("laion2B-en", "laion2B-multi", "sub/laion1B"), strict=True):
        array, table = f"{subset}/img_emb/img_emb_0000.npy", f"{subset}/metadata/metadata_0.parquet"
        write(tmp_path, (array, table), rows_of(2), key=[f"{letter}0", f"{letter}1"])
    keys = {
        file.url.removeprefix(str(tmp_path)): next(read_embeddings(file))[1]["key"].to_pylist() for file in find_embeddings(str(tmp_path))
    }
    assert keys == {
        f"/{subset}/img_emb/img_emb_0000.npy": [f"{letter}0", f"{letter}1"]
        for letter, subset in zip("abc", ("laion2B-en", "laion2B-multi", "sub/laion1B"), strict=True)
    }


@pytest.mark.parametrize(
    ("array", "table"),
    [
        ("img_emb_0.npy", "metadata_0.parquet"),
        ("a/img_emb_0.npy", "a/metadata_00.parquet"),
        ("a/img_emb_0.npy", "metadata_0.parquet"),
        ("img_emb_0.npy", "metadata/metadata_0.parquet"),
        ("x/vectors/img_emb_0.npy", "x/tables/metadata_0.parquet"),
    ],
)
def test_a_table_is_found_near_its_array(tmp_path, array, table):
    write(tmp_path, (array, table), rows_of(2))
    (file,) = find_embeddings(str(tmp_path))
    assert (file.url, file.metadata) == (f"{tmp_path}/{array}", f"{tmp_path}/{table}")


def test_its_own_folder_s_table_comes_before_others(tmp_path):
    write(tmp_path, ("a/img_emb_0.npy", "a/metadata_0.parquet"), rows_of(2), key=["own", "own"])
    write(tmp_path, ("b/img_emb_0.npy", "b/metadata_0.parquet"), rows_of(2), key=["other", "other"])
    assert [file.metadata.removeprefix(str(tmp_path)) for file in find_embeddings(str(tmp_path))] == [
        "/a/metadata_0.parquet",
        "/b/metadata_0.parquet",
    ]


def _two_tables(folder):
    write(folder, ("img_emb/img_emb_0.npy", "metadata/metadata_0.parquet"), rows_of(2))
    write(folder, ("img_emb/img_emb_0.npy", "metadata_old/metadata_00.parquet"), rows_of(2))


def _one_table_twice(folder):
    write(folder, ("a/img_emb_0.npy", "metadata_0.parquet"), rows_of(2))
    write(folder, ("b/img_emb_0.npy", "metadata_0.parquet"), rows_of(2))


def _far_table(folder):
    write(folder, ("a/b/img_emb_0.npy", "c/d/metadata_0.parquet"), rows_of(2))


def _cut_off(folder):
    write(folder, ("img_emb_0.npy", "metadata_0.parquet"), rows_of(50))
    write(folder, ("img_emb_1.npy", "metadata_1.parquet"), rows_of(50))
    data = (folder / "img_emb_1.npy").read_bytes()
    (folder / "img_emb_1.npy").write_bytes(data[:-10])


def _without_array(folder):
    write(folder, ("img_emb_0.npy", "metadata_0.parquet"), rows_of(2))
    pq.write_table(pa.table({"key": ["a"]}), folder / "metadata_1.parquet")


def _without_plain_array(folder):
    write(folder, ("a.npy", "a.parquet"), rows_of(2))
    pq.write_table(pa.table({"key": ["a"]}), folder / "b.parquet")


def _struct(folder):
    pq.write_table(pa.table({"embedding": [{"x": 1.0}, {"x": 2.0}]}), folder / "a.parquet")


def _two_lists(folder):
    pq.write_table(pa.table({"embedding": [[[1.0, 2.0], [3.0, 4.0]]] * 3}), folder / "a.parquet")


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
        (_two_tables, "img_emb_0.npy may belong to .*metadata/metadata_0.parquet or to .*metadata_old/metadata_00.parquet; expected one"),
        (_one_table_twice, "a/img_emb_0.npy and .*b/img_emb_0.npy both belong to .*metadata_0.parquet; expected a table for each"),
        (_far_table, "img_emb_0.npy has no metadata; expected metadata_0.parquet"),
        (_cut_off, "img_emb_1.npy is cut off: its header announces 50 rows, and 10 bytes of them are missing"),
        (_without_array, "1 of 2 tables have no array, the first .*metadata_1.parquet; expected img_emb_1.npy"),
        (_without_plain_array, "1 of 2 tables have no array, the first .*b.parquet; expected b.npy"),
        (_struct, "the column 'embedding' holds struct<x: double>; expected lists of numbers"),
        (_two_lists, "several lists in each row; expected one list of numbers"),
    ],
)
def test_what_can_not_be_used_is_named(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        find_embeddings(str(tmp_path))
    assert re.fullmatch(r"[^\n]*", str(caught.value))


def test_what_is_missing_may_be_allowed_and_is_counted(tmp_path):
    _cut_off(tmp_path)
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "metadata_7.parquet")
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "licences.parquet")
    counts = Counter()
    (file,) = find_embeddings(str(tmp_path), counts, allow_missing=True)
    assert file.url == f"{tmp_path}/img_emb_0.npy"
    assert counts == {"rows of arrays that are cut off": 50, "tables without an array": 1, "tables of other names": 1}


def test_a_run_below_the_folder_is_none_of_its_embeddings(tmp_path):
    write(tmp_path, ("img_emb/img_emb_0.npy", "metadata/metadata_0.parquet"), rows_of(2))
    run = tmp_path / "old" / "run"
    write(run / "embeddings", ("img_emb/img_emb_00000.npy", "metadata/metadata_00000.parquet"), rows_of(9))
    (run / "_config.json").write_text("{}")
    counts = Counter()
    (file,) = find_embeddings(str(tmp_path), counts)
    assert (file.n_rows, counts) == (2, {"run directories": 1})
    # the same in an object store; and where the run is what is asked for
    remote = fsspec.filesystem("memory")
    remote.put(str(tmp_path), "/runs_below", recursive=True)
    counts = Counter()
    (file,) = find_embeddings("memory://runs_below", counts)
    assert (file.n_rows, counts) == (2, {"run directories": 1})
    remote.rm("/runs_below", recursive=True)
    (file,) = find_embeddings(str(run))
    assert file.n_rows == 9


def test_links_to_folders_are_followed(tmp_path):
    write(tmp_path / "real", ("v/img_emb_0.npy", "t/metadata_0.parquet"), rows_of(2))
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "img_emb").symlink_to(tmp_path / "real" / "v")
    (tmp_path / "links" / "metadata").symlink_to(tmp_path / "real" / "t")
    (tmp_path / "again").symlink_to(tmp_path / "links")
    for folder in ("links", "again"):
        (file,) = find_embeddings(str(tmp_path / folder))
        assert file.url == f"{tmp_path}/links/img_emb/img_emb_0.npy"


def test_values_decide_and_not_the_schema(tmp_path):
    empty = pa.nulls(3, pa.string())
    numbers = pa.nulls(3, pa.int64())
    places = {"shard": empty, "byte_offset": numbers, "n_bytes": numbers}
    write(tmp_path, ("a.npy", "a.parquet"), rows_of(3), sha256=empty, **places)
    (file,) = find_embeddings(str(tmp_path))
    assert not file.has_sha256
    assert not file.has_places
    assert next(read_embeddings(file))[1].num_rows == 3


def test_the_width_of_most_rows_counts(tmp_path):
    pq.write_table(pa.table({"embedding": [[1.0]] + [[1.0, 2.0, 3.0]] * 20}), tmp_path / "a.parquet")
    (file,) = find_embeddings(str(tmp_path))
    assert file.dim == 3
    vectors, _ = next(read_embeddings(file))
    assert np.isnan(vectors[0]).all()
    assert np.isfinite(vectors[1:]).all()


@pytest.mark.parametrize("kind", ["nested", "nested in fixed", "tensor"])
def test_vectors_nested_once_more_and_tensors(tmp_path, kind):
    rows = rows_of(5).astype(np.float32)
    if kind == "tensor":
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(rows)
    else:
        values = [[row] for row in rows.tolist()]
        values[2] = [] if kind == "nested" else None
        inner = pa.list_(pa.float32())
        column = pa.array(values, pa.list_(inner) if kind == "nested" else pa.list_(pa.list_(pa.float32(), 4), 1))
    pq.write_table(pa.table({"embedding": column}), tmp_path / "a.parquet")
    (file,) = find_embeddings(str(tmp_path))
    vectors, _ = next(read_embeddings(file))
    good = [0, 1, 3, 4] if kind != "tensor" else [0, 1, 2, 3, 4]
    assert np.array_equal(vectors[good], rows[good])
    assert np.isnan(np.delete(vectors, good, axis=0)).all()


def test_a_hash_that_unlike_vectors_share_is_none(tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 32)).astype(np.float16)
    rows[1] = rows[0]
    good = [f"{max(k, 1):064x}" for k in range(40)]  # the first two are one image
    write(tmp_path / "good", ("a.npy", "a.parquet"), rows, sha256=good)
    write(tmp_path / "bad", ("a.npy", "a.parquet"), rows, sha256=["e" * 64] * 40)
    assert find_embeddings(str(tmp_path / "good"))[0].has_sha256
    counts = Counter()
    (file,) = find_embeddings(str(tmp_path / "bad"), counts)
    assert not file.has_sha256
    assert counts == {"columns sha256 that unlike vectors share": 1}
    assert next(read_embeddings(file))[1]["sha256"].null_count == 40


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_read_alike_here_and_from_a_store(tmp_path, dtype, order):
    rows = np.asarray(np.random.default_rng(0).normal(size=(37, 8)) * 1e3, dtype=dtype, order=order)
    write(tmp_path, ("a.npy", "a.parquet"), rows)
    remote = fsspec.filesystem("memory")
    remote.put(str(tmp_path), f"/arrays{dtype[1:]}{order}", recursive=True)
    for folder in (str(tmp_path), f"memory://arrays{dtype[1:]}{order}"):
        (file,) = find_embeddings(folder)
        vectors = np.concatenate([vectors for vectors, _ in read_embeddings(file, batch_rows=10)])
        assert np.array_equal(vectors, rows.astype(np.float32))
        assert vectors.dtype == np.float32


def datacomp(folder, n=6):
    """A file of DataComp's metadata: four arrays in an archive, beside a table."""
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.normal(size=(n, width)).astype(np.float16)
        for name, width in (("b32_img", 8), ("l14_img", 12), ("b32_txt", 8), ("l14_txt", 12))
    }
    np.savez(folder / f"{'0' * 32}.npz", **arrays)
    columns = {
        "uid": [f"{k:032x}" for k in range(n)],
        "url": ["u"] * n,
        "text": [f"t{k}" for k in range(n)],
        "original_width": [640] * n,
        "width": [256] * n,
    }
    pq.write_table(pa.table(columns), folder / f"{'0' * 32}.parquet")
    return arrays


@pytest.mark.parametrize("name", ["b32_img", "l14_img", "l14_txt"])
def test_datacomp_s_archives(tmp_path, name):
    arrays = datacomp(tmp_path)
    (file,) = find_embeddings(str(tmp_path), columns=[f"vector={name}"])
    assert (file.dim, file.n_rows) == (arrays[name].shape[1], 6)
    parts = list(read_embeddings(file, batch_rows=4))
    assert np.array_equal(np.concatenate([vectors for vectors, _ in parts]), arrays[name].astype(np.float32))
    rows = pa.concat_tables([rows for _, rows in parts])
    assert rows["key"].to_pylist() == [f"{k:032x}" for k in range(6)]
    assert rows["caption"].to_pylist() == [f"t{k}" for k in range(6)]
    assert rows["width"].to_pylist() == [640] * 6  # of the file at its address, not of the resized one


def test_an_archive_of_several_arrays_needs_a_name(tmp_path):
    datacomp(tmp_path)
    with pytest.raises(InputError, match="holds the arrays b32_img, l14_img, b32_txt, l14_txt; name one: input.columns=vector=b32_img"):
        find_embeddings(str(tmp_path))
    with pytest.raises(InputError, match="names the vectors 'x'; found the arrays b32_img"):
        find_embeddings(str(tmp_path), columns=["vector=x"])
    with pytest.raises(InputError, match="input.columns names 'nothing'; found the columns uid, url"):
        find_embeddings(str(tmp_path), columns=["vector=b32_img", "key=nothing"])
    with pytest.raises(ConfigError, match="input.columns=vectors=b: expected ROLE=COLUMN with one of vector, key, url, caption"):
        find_embeddings(str(tmp_path), columns=["vectors=b"])


def test_any_column_may_hold_what_is_asked_for(tmp_path):
    table = {"id": ["x", "y"], "name": ["k0", "k1"], "clip_embedding": [[1.0, 0.0], [0.0, 1.0]], "link": ["u0", "u1"], "alt": ["c0", "c1"]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    with pytest.raises(
        InputError, match="expected one of embedding, .*; if the vectors are in 'clip_embedding': input.columns=vector=clip_embedding"
    ):
        find_embeddings(str(tmp_path))
    (file,) = find_embeddings(str(tmp_path), columns=["vector=clip_embedding", "key=name", "url=link", "caption=alt"])
    ((vectors, rows),) = read_embeddings(file)
    assert vectors.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert rows.select(["key", "url", "caption"]).to_pylist() == [{"key": f"k{k}", "url": f"u{k}", "caption": f"c{k}"} for k in range(2)]


def test_bytes_are_no_numbers(tmp_path):
    pq.write_table(pa.table({"embedding": [row.tobytes() for row in rows_of(3)]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="the column 'embedding' holds 8 bytes a row, .*; expected .*input.raw=float16x4"):
        find_embeddings(str(tmp_path))


def read_all(files):
    """Vectors and keys of files of embeddings."""
    batches = [batch for file in files for batch in read_embeddings(file, batch_rows=3)]
    return np.concatenate([vectors for vectors, _ in batches]), [key for _, rows in batches for key in rows["key"].to_pylist()]


@pytest.mark.parametrize("place", ["local", "store"])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "float64"])
def test_raw_arrays(tmp_path, place, dtype):
    data = rows_of(7).astype(dtype).tobytes()
    folder = str(tmp_path) if place == "local" else "memory://raw-arrays"
    with fsspec.open(f"{folder}/a.memmap", "wb") as file:
        file.write(data)
    spec = f"{dtype}x4"
    vectors, keys = read_all(find_embeddings(folder, raw=spec))
    assert np.array_equal(vectors, rows_of(7))
    assert keys == [str(row) for row in range(7)]
    assert n_rows_of(f"{folder}/a.memmap", spec) == 7
    with pytest.raises(InputError, match="7 rows of input.raw=.*; expected a multiple of a row|more than .* rows of input.raw"):
        find_embeddings(folder, raw="float32x9")
    with pytest.raises(InputError, match="raw arrays need their type and width: input.raw=float16x512"):
        find_embeddings(folder)


@pytest.mark.parametrize("spec", ["512", "int8x512", "float16x0", "float16", "float16x512x2"])
def test_what_is_no_type_and_width(spec):
    with pytest.raises(ConfigError, match="expected TYPExWIDTH with float16, float32 or float64"):
        raw_rows(spec)


def test_arrays_alone(tmp_path):
    """Keys are the numbers of rows; one that lacks a table that others have is an error; a stray CSV is nobody's."""
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", rows_of(3))
    (tmp_path / "statistics.csv").write_text("what,n\nrows,6\n")
    counts = Counter()
    files = find_embeddings(str(tmp_path), counts)
    assert [(file.n_rows, file.dim, file.metadata) for file in files] == [(3, 4, "")] * 2
    assert read_all(files)[1] == ["0", "1", "2"] * 2
    assert counts == {"tables of other names": 1}
    (tmp_path / "a.csv").write_text("key\nx\ny\nz\n")
    with pytest.raises(InputError, match="b.npy has no metadata; expected b.parquet"):
        find_embeddings(str(tmp_path))


def _csv(path, delimiter, opened=open):
    lines = [("id", "TEXT", "URL", "width"), ("k0", "a, b", "u0", "640"), ("k1", 'say "x"\nand y', "", "640.0"), ("k2", "", "u2", "")]
    with opened(path, "wt", encoding="latin-1", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([*lines, ("k3", "caf\xe9", "u3", "wide")])


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
def test_metadata_in_csv(tmp_path, name):
    np.save(tmp_path / "a.npy", rows_of(4))
    _csv(tmp_path / name, "\t" if "tsv" in name else ";", gzip.open if name.endswith("gz") else open)
    ((vectors, rows),) = read_embeddings(*find_embeddings(str(tmp_path)))
    assert np.array_equal(vectors, rows_of(4))
    assert rows["key"].to_pylist() == ["k0", "k1", "k2", "k3"]
    assert rows["caption"].to_pylist() == ["a, b", 'say "x"\nand y', None, "caf\ufffd"]
    assert rows["url"].to_pylist() == ["u0", None, "u2", "u3"]
    assert rows["width"].to_pylist() == [640, 640, None, None]
    np.save(tmp_path / "a.npy", rows_of(5))
    with pytest.raises(InputError, match="a.npy has 5 rows and .*a.* 4; expected a row of metadata for each vector"):
        find_embeddings(str(tmp_path))


def test_numbered_tables_in_packed_csv(tmp_path):
    np.save(tmp_path / "img_emb_0.npy", rows_of(2))
    with gzip.open(tmp_path / "metadata_000.csv.gz", "wt") as file:
        file.write("key\na\nb\n")
    assert read_all(find_embeddings(str(tmp_path)))[1] == ["a", "b"]


def test_csv_of_one_column_and_in_utf_16(tmp_path):
    np.save(tmp_path / "a.npy", rows_of(3))
    (tmp_path / "a.csv").write_text("caption\none\n\nthree\n")
    ((_, rows),) = read_embeddings(*find_embeddings(str(tmp_path)))
    assert rows["caption"].to_pylist() == ["one", None, "three"]
    (tmp_path / "a.csv").write_text("key;caption\nk0;Br\u00fccke\nk1;\nk2;M\u00f6we\n", encoding="utf-16")
    ((_, rows),) = read_embeddings(*find_embeddings(str(tmp_path)))
    assert (rows["key"].to_pylist(), rows["caption"].to_pylist()) == (["k0", "k1", "k2"], ["Br\u00fccke", None, "M\u00f6we"])


def test_a_raw_array_that_is_cut_off_may_be_allowed(tmp_path):
    (tmp_path / "a.bin").write_bytes(rows_of(5).tobytes())
    (tmp_path / "b.bin").write_bytes(rows_of(5).tobytes()[:-3])
    counts = Counter()
    (file,) = find_embeddings(str(tmp_path), counts, raw="float16x4", allow_missing=True)
    assert (file.n_rows, counts) == (5, {"rows of arrays that are cut off": 4})


def test_one_table_in_two_forms(tmp_path):
    """As clip-retrieval's users have them: the typed one is read, the other is counted."""
    write(tmp_path, ("img_emb/img_emb_0.npy", "metadata/metadata_0.parquet"), rows_of(2), key=["a", "b"])
    (tmp_path / "metadata" / "metadata_0.csv").write_text("key\nx\ny\n")
    counts = Counter()
    (file,) = find_embeddings(str(tmp_path), counts)
    assert file.metadata.endswith("metadata_0.parquet")
    assert counts == {"tables of other names": 1}


def test_tables_of_several_folders_are_no_forms_of_one(tmp_path):
    write(tmp_path, ("img_emb/img_emb_0.npy", "metadata/metadata_0.parquet"), rows_of(2), key=["a", "b"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "metadata_0.csv").write_text("key\nx\ny\n")
    with pytest.raises(InputError, match=r"may belong to .*metadata_0.parquet or to .*other/metadata_0.csv; expected one"):
        find_embeddings(str(tmp_path))


def _arrow_file(table, path):
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def _lance(table, path):
    import lance

    lance.write_dataset(table, str(path), max_rows_per_file=3)


@pytest.mark.parametrize(("suffix", "write_as"), [(".arrow", _arrow_file), (".lance", _lance), (".parquet", pq.write_table)])
def test_vectors_and_metadata_in_typed_tables(tmp_path, suffix, write_as, require_extra):
    if suffix == ".lance":
        require_extra("lance")
    keys = [f"k{row}" for row in range(7)]
    lists = pa.FixedSizeListArray.from_arrays(pa.array(rows_of(7).astype(np.float32).ravel()), 4)
    write_as(pa.table({"vector": lists, "id": keys, "text": ["t"] * 7}), tmp_path / f"vectors{suffix}")
    for folder in (tmp_path, tmp_path / "vectors.lance") if suffix == ".lance" else (tmp_path,):
        files = find_embeddings(str(folder))
        vectors, found = read_all(files)
        assert np.array_equal(vectors, rows_of(7))
        assert found == keys
        assert (n_rows_of(files[0].url), files[0].url) == (7, str(tmp_path / f"vectors{suffix}"))
    before = fingerprint(files[0]), content_stamp(files[0])
    assert all(len(stamp) == 32 for stamp in before)
    array = tmp_path / "beside"
    array.mkdir()
    np.save(array / "x.npy", rows_of(7))
    write_as(pa.table({"id": keys}), array / f"x{suffix}")
    vectors, found = read_all(find_embeddings(str(array)))
    assert np.array_equal(vectors, rows_of(7))
    assert found == keys


def test_columns_of_bytes(tmp_path):
    """Null, short and long rows are nobody's vector."""
    values = [row.astype(">f4").tobytes() for row in rows_of(5)]
    values[1], values[3] = None, values[3][:-1]
    for kind in (pa.binary(), pa.large_binary()):
        pq.write_table(pa.table({"embedding": pa.array(values, kind)}), tmp_path / "a.parquet")
        (file,) = find_embeddings(str(tmp_path), raw=">f4x4")
        ((vectors, _),) = read_embeddings(file)
        assert np.array_equal(vectors[[0, 2, 4]], rows_of(5)[[0, 2, 4]])
        assert np.isnan(vectors[[1, 3]]).all()
    with pytest.raises(InputError, match="the column 'embedding' holds 16 bytes a row; input.raw has 8: correct type and width"):
        find_embeddings(str(tmp_path), raw="float16x4")
