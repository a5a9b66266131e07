"""The index that stays: parts merged on disk hold what was put in, and are searched where they lie."""

import faiss
import numpy as np
import pytest
from vector_data import power_law

from dedup.errors import ConfigError, RunDirectoryError
from dedup.numerics.search import faiss_index as ivf
from dedup.numerics.search import faiss_index as ivfbuild
from dedup.numerics.search import lists as ann


def rows_of(n):
    return power_law(np.random.default_rng(5), n, 32).astype(np.float32)


@pytest.fixture(scope="module")
def made():
    rows = rows_of(6_000)
    quantizer = ann.train_quantizer(rows, ann.Training(40, 4, 4, 7))
    return rows, quantizer, np.arange(6_000) * 3 + (1 << 32)


def merged(tmp_path, trained, rows, ids, home=None):
    paths = []
    for number, start in enumerate(range(0, len(ids), 2_500)):
        part = slice(start, start + 2_500)
        paths.append(str(tmp_path / f"part-{number}"))
        data = ivfbuild.filled_part(trained, ids[part], rows[part], None if home is None else home[part])
        (tmp_path / f"part-{number}").write_bytes(data)
    path = str(tmp_path / "index.faiss")
    assert ivfbuild.merge_parts(trained, paths, path, str(tmp_path / "index.ivfdata")) == len(ids)
    return path


@pytest.mark.parametrize(("codes", "least_recall"), [("pq", 0.9), ("fp16", 1.0)])
def test_it_finds_what_was_put_in(made, tmp_path, codes, least_recall):
    rows, quantizer, ids = made
    home = quantizer.assign(rows, 1)[:, 0]
    trained = ivfbuild.trained_index(quantizer.centroids, rows, codes=codes, nprobe=8)
    index = ivf.IvfIndex(merged(tmp_path, trained, rows, ids, home))
    assert (index.n_vectors, index.dim, index.nlist, index.nprobe) == (6_000, 32, 40, 8)
    assert index.list_sizes().tolist() == np.bincount(home, minlength=40).tolist()
    found, similarity = index.search(rows[:200], 5, quantizer.assign(rows[:200], 8))
    assert (found == ids[:200, None]).any(1).mean() >= least_recall
    assert (np.diff(similarity, axis=1) <= 0).all()
    assert ivfbuild.pq_bytes(100) == 50


def test_lists_given_are_those_looked_into(made, tmp_path):
    """With float16 codes the estimates are the similarities of all vectors of the lists, no more and no fewer."""
    rows, quantizer, ids = made
    home = quantizer.assign(rows, 1)[:, 0]
    trained = ivfbuild.trained_index(quantizer.centroids, rows, codes="fp16", nprobe=8)
    index = ivf.IvfIndex(merged(tmp_path, trained, rows, ids, home))
    lists = quantizer.assign(rows[:20], 3)
    found, similarity = index.search(rows[:20], 1_000, lists)
    for query in range(20):
        inside = np.flatnonzero(np.isin(home, lists[query]))
        expected = inside[np.argsort(-(rows[inside] @ rows[query]), kind="stable")][:1_000]
        n = len(expected)
        np.testing.assert_allclose(similarity[query, :n], rows[expected] @ rows[query], atol=2e-3)
        assert set(found[query, :n].tolist()) == set(ids[expected].tolist()) or n == 1_000
        assert (found[query, n:] == -1).all()


def test_growing_is_merging_an_index_with_new_parts(made, tmp_path):
    rows, quantizer, ids = made
    home = quantizer.assign(rows, 1)[:, 0]
    trained = ivfbuild.trained_index(quantizer.centroids, rows, codes="fp16", nprobe=40)
    (tmp_path / "old").mkdir()
    old = merged(tmp_path / "old", trained, rows[:4_000], ids[:4_000], home[:4_000])
    part = tmp_path / "new-part"
    part.write_bytes(ivfbuild.filled_part(trained, ids[4_000:], rows[4_000:], home[4_000:]))
    grown = str(tmp_path / "grown.faiss")
    assert ivfbuild.merge_parts(trained, [str(part)], grown, str(tmp_path / "grown.ivfdata"), base=old) == 6_000
    (tmp_path / "whole").mkdir()
    whole = ivf.IvfIndex(merged(tmp_path / "whole", trained, rows, ids, home))
    index = ivf.IvfIndex(grown)
    for one, other in zip(index.search(rows[::50], 10), whole.search(rows[::50], 10), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("factory", ["IVF{nlist},Flat", "OPQ8_32,IVF{nlist},PQ8"])
def test_other_indexes_train_lists_of_their_own(made, tmp_path, factory):
    rows, _, ids = made
    trained = ivfbuild.trained_factory(factory, rows, nlist=30, nprobe=10, seed=3)
    index = ivf.IvfIndex(merged(tmp_path, trained, rows, ids))
    assert (index.nlist, index.nprobe, index.n_vectors) == (30, 10, 6_000)
    found, _ = index.search(rows[:200], 10)
    assert (found == ids[:200, None]).any(1).mean() > 0.9


def test_what_is_no_index_is_said(made, tmp_path):
    rows, quantizer, ids = made
    with pytest.raises(ConfigError, match="index.factory=IVF40,PQ7"):
        ivfbuild.trained_factory("IVF40,PQ7", rows, nlist=40, nprobe=4, seed=0)
    trained = ivfbuild.trained_index(quantizer.centroids, rows, codes="fp16", nprobe=8)
    path = merged(tmp_path, trained, rows, ids, quantizer.assign(rows, 1)[:, 0])
    with open(path, "rb") as file:
        data = file.read()
    for wrong in (data[: len(data) // 2], b"no index at all"):
        (tmp_path / "wrong.faiss").write_bytes(wrong)
        with pytest.raises(RunDirectoryError, match="can't be read as an index"):
            ivf.IvfIndex(str(tmp_path / "wrong.faiss"))

    lists = tmp_path / "index.ivfdata"
    lists.write_bytes(lists.read_bytes()[:-100])
    with pytest.raises(RunDirectoryError, match="index.ivfdata has .* bytes, expected"):
        ivf.IvfIndex(path)
    lists.unlink()
    with pytest.raises(RunDirectoryError, match="index.ivfdata is missing"):
        ivf.IvfIndex(path)


def test_opening_says_nothing(made, tmp_path, capfd):
    rows, quantizer, ids = made
    trained = ivfbuild.trained_index(quantizer.centroids, rows, codes="fp16", nprobe=8)
    ivf.IvfIndex(merged(tmp_path, trained, rows, ids, quantizer.assign(rows, 1)[:, 0])).search(rows[:3], 2)
    assert capfd.readouterr() == ("", "")


@pytest.mark.gpu
def test_on_a_gpu_it_finds_the_same(made, tmp_path):
    rows, quantizer, ids = made
    if not ann.count_gpus() or not faiss.get_num_gpus():
        pytest.skip("needs a CUDA device and faiss-gpu")
    trained = ivfbuild.trained_index(quantizer.centroids, rows, codes="pq", nprobe=8)
    path = merged(tmp_path, trained, rows, ids, quantizer.assign(rows, 1)[:, 0])
    found, _ = ivf.IvfIndex(path, n_gpus=1).search(rows[:200], 10)
    assert (found == ids[:200, None]).any(1).mean() > 0.9
