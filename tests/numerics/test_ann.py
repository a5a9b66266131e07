"""The coarse quantizer and the index it makes."""

import faiss
import numpy as np
import pytest
from vector_data import copies_of, power_law

from dedup.errors import ShapeError
from dedup.numerics.search import lists as ann
from dedup.numerics.search.gpu import Device


def rows_of(n, dim=64, seed=0):
    return power_law(np.random.default_rng(seed), n, dim).astype(np.float32)


def test_lists_are_balanced_and_hold_near_pairs():
    rows = rows_of(20_000)
    quantizer = ann.train_quantizer(rows[:8_000], ann.Training(150, 8, 6, 1))
    sizes = np.bincount(quantizer.assign(rows, 8).ravel(), minlength=150)
    plain = ann.Quantizer(quantizer.centroids, np.zeros(150, np.float32))
    unbalanced = np.bincount(plain.assign(rows, 8).ravel(), minlength=150)
    # the cost of a join is the sum of the squared sizes
    assert (sizes.astype(float) ** 2).sum() < 0.85 * (unbalanced.astype(float) ** 2).sum()
    rng = np.random.default_rng(2)
    copies = np.concatenate([copies_of(rng, row.astype(np.float64), 1, 0.95) for row in rows[:500]]).astype(np.float32)
    shared = (quantizer.assign(rows[:500], 8)[:, :, None] == quantizer.assign(copies, 8)[:, None, :]).any((1, 2))
    assert shared.mean() > 0.99


def test_assignment_is_by_product_minus_offset():
    rng = np.random.default_rng(0)
    quantizer = ann.Quantizer(rows_of(30, 16), rng.normal(0, 0.1, 30).astype(np.float32))
    rows = rows_of(100, 16, seed=3)
    order = np.argsort(-(rows @ quantizer.centroids.T - quantizer.offsets), axis=1)[:, :4]
    assert np.array_equal(quantizer.assign(rows, 4), order)
    assert quantizer.assign(rows, 99).shape == (100, 30)


def test_a_crowd_draws_one_centroid():
    rng = np.random.default_rng(0)
    rows = rows_of(4_000)
    rows[:2_000] = copies_of(rng, rows[0].astype(np.float64), 2_000, 0.99)
    quantizer = ann.train_quantizer(rows, ann.Training(60, 4, 6, 1))
    near = quantizer.centroids @ rows[0]
    assert (near > 0.95).sum() <= 2


def test_training_is_reproducible_and_refuses_too_few_rows():
    rows = rows_of(3_000)
    first, second = (ann.train_quantizer(rows, ann.Training(40, 4, 4, 7)) for _ in range(2))
    assert np.array_equal(first.centroids, second.centroids)
    assert np.array_equal(first.offsets, second.offsets)
    with pytest.raises(ShapeError, match="can't train 40 lists from 10 vectors"):
        ann.train_quantizer(rows[:10], ann.Training(40, 4, 4, 7))


def test_choices():
    assert ann.choose_nlist(10, 4) == 2
    assert ann.choose_nlist(1, 4) == 1


@pytest.mark.parametrize(("device", "n_gpus", "asked"), [(None, 2, 0), (Device("cpu"), 0, 0), (Device("cpu"), 2, 2)])
def test_lists_are_trained_on_the_gpus_that_faiss_has(monkeypatch, require_extra, device, n_gpus, asked):
    """A FAISS that has GPUs, whose k-means computes on the CPU all the same."""
    require_extra("torch")
    rows, kmeans, seen = rows_of(3_000), faiss.Kmeans, []
    expected = ann.train_quantizer(rows, ann.Training(40, 4, 4, 7))
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: n_gpus)
    monkeypatch.setattr(faiss, "Kmeans", lambda *sizes, gpu, **options: seen.append(gpu) or kmeans(*sizes, **options))
    found = ann.train_quantizer(rows, ann.Training(40, 4, 4, 7), device)
    assert seen == [asked]
    assert np.array_equal(found.centroids, expected.centroids)
    assert np.allclose(found.offsets, expected.offsets, atol=1e-6)


@pytest.mark.gpu
def test_lists_trained_on_a_gpu_are_as_good(require_extra):
    torch = require_extra("torch")
    if not torch.cuda.is_available() or not ann.count_gpus():
        pytest.skip("needs a CUDA device and faiss-gpu")
    rows = rows_of(20_000)
    means = []
    for device in (None, Device("cuda:0")):
        quantizer = ann.train_quantizer(rows, ann.Training(150, 8, 6, 1), device)
        means.append((rows @ quantizer.centroids.T).max(axis=1).mean())
    assert abs(means[1] - means[0]) < 0.01
