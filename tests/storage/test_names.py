"""Lists of names: the same files are read alike, whether they say what stays or what must go."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from dedup.errors import InputError
from dedup.storage.input.names import Entry, read_keep_list, read_takedown_list

HASH = "AB" * 32


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_keys_of_digits_stay_texts_in_tables(tmp_path, kind):
    path, rows = tmp_path / f"list.{kind}", pa.table({"key": ["000123", "7"], "note": ["a", "b"]})
    pq.write_table(rows, path) if kind == "parquet" else pa.csv.write_csv(rows, path)
    assert read_keep_list(str(path)).to_pydict() == {"key": ["000123", "7"]}
    assert read_takedown_list(str(path)) == [Entry("key", "000123", "000123"), Entry("key", "7", "7")]


def test_hashes_are_lower_case_wherever_they_stand(tmp_path):
    in_text, in_table = written(tmp_path / "a.txt", HASH), written(tmp_path / "a.csv", f"sha256\n{HASH}\n")
    for path in (in_text, in_table, f"file://{in_table}"):
        assert read_keep_list(path).to_pydict() == {"sha256": [HASH.lower()]}
        assert read_takedown_list(path) == [Entry("sha256", HASH.lower(), HASH)]


def test_lines(tmp_path):
    image = tmp_path / "a.jpg"
    image.touch()
    lines = ["\ufeff# a comment", " key:one ", "url:https://a.b/c", "https://a.b/d", "", HASH, str(image), "gone.jpg", "two", "two"]
    found = [(entry.kind, entry.value) for entry in read_takedown_list(written(tmp_path / "list.txt", "\n".join(lines)))]
    known = [("key", "one"), ("url", "https://a.b/c"), ("url", "https://a.b/d"), ("sha256", HASH.lower()), ("image", str(image))]
    assert found == [*known, ("key", "gone.jpg"), ("key", "two")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a\nb\na\n", {"key": ["a", "b", "a"]}),
        (f"a\n{HASH}\n", {"key": ["a", HASH]}),
        ("https://a.b/c\n", {"url": ["https://a.b/c"]}),
    ],
    ids=["keys", "a key like a hash", "urls"],
)
def test_lines_of_a_keep_list_are_of_one_kind(tmp_path, text, found):
    assert read_keep_list(written(tmp_path / "list.txt", text)).to_pydict() == found


def test_what_can_not_be_read_is_said(tmp_path):
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xff")
    np.save(tmp_path / "other.npy", np.arange(3))
    mixed, empty = written(tmp_path / "mixed.txt", "a\nhttps://a.b/c\n"), written(tmp_path / "empty.txt", "# nothing\n")
    other = written(tmp_path / "other.csv", "name\nx\n")
    for path, text in [
        (str(tmp_path / "none.txt"), "does not exist; expected"),
        (str(tmp_path / "bytes.txt"), "can't be read .*; expected .*UTF-8 text"),
        (other, "found the columns name, expected one of"),
    ]:
        with pytest.raises(InputError, match=f"the keep list .*{text}"):
            read_keep_list(path)
        with pytest.raises(InputError, match=f"exclude.list=.*{text}"):
            read_takedown_list(path)
    for path, text in [
        (mixed, "some lines are urls"),
        (empty, "names no samples"),
        (str(tmp_path / "other.npy"), "expected a vector of u8,u8"),
    ]:
        with pytest.raises(InputError, match=text):
            read_keep_list(path)
    assert read_takedown_list(empty) == []
