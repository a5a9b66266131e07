"""Products on a device propose and the CPU decides: on torch's CPU, and on a GPU where there is one, as in numpy alone."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vector_data import all_similarities, copies_of, power_law, random_views, with_planted

from dedup import machine as devices
from dedup.errors import ConfigError, MissingExtra
from dedup.numerics.search import gpu as torch_ops
from dedup.numerics.search.balls import Ownership, find_balls
from dedup.numerics.search.gpu import BLOCK, Device, Grid, HalfProducts, Tiling, choose_device
from dedup.numerics.search.list_join import self_join
from dedup.numerics.search.lists import Quantizer
from dedup.numerics.search.project import principal_axes, with_rest
from dedup.numerics.search.strips import JoinSettings
from dedup.numerics.search.view_join import ViewRule, join_views
from dedup.numerics.similarity import half_limit

FIELDS = ("src", "dst", "similarity", "n_neighbors")


@pytest.fixture(scope="module")
def torch(require_extra):
    return require_extra("torch")


@pytest.fixture(params=["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def name(request, torch):
    if request.param != "cpu" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return request.param


# strips so small that a few hundred rows make many, of several blocks of columns
SMALL = Tiling(strip=64, columns=256, diagonal=128)


def assert_same(one, other, fields=FIELDS):
    for field in fields:
        assert np.array_equal(getattr(one, field), getattr(other, field)), field


def projections(rows, k):
    unit = rows.astype(np.float32) / np.maximum(np.linalg.norm(rows.astype(np.float32), axis=1, keepdims=True), 1e-9)
    return with_rest(unit @ principal_axes(unit)[:, :k]).astype(np.float16)


@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 50, 384, 512, 1_280]), st.floats(0.05, 1.0), st.floats(0.9, 1.1), st.booleans())
def test_no_pair_within_the_threshold_is_below_the_limit(torch, seed, dim, threshold, norm, has_one_sign):
    """Pairs right at the threshold, of rows that float16 has rounded, in the products of torch's CPU."""
    rng = np.random.default_rng(seed)
    base = power_law(rng, 12, dim)
    base = np.abs(base) if has_one_sign else base  # the sizes of the summands are then those of the sum
    rows = np.concatenate([base, *(copies_of(rng, row, 12, threshold) for row in base)]) * norm
    rows = rows.astype(np.float16)
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    limit = half_limit(threshold, norms.min(), norms.max(), dim)
    assert limit == np.float16(limit)
    assert threshold * norms.min() ** 2 - limit < 2.0**-22 * 1.02 * dim * norms.max() ** 2 + 2.0**-10
    tensor = torch.from_numpy(rows)
    proposed = (torch_ops.multiply("cpu", [(tensor, torch.cat([tensor, torch.zeros(-len(rows) % 64, dim).half()]))]) >= limit).numpy()
    proposed = proposed.reshape(len(rows), -1)[:, : len(rows)]
    assert proposed[all_similarities(rows) >= np.float32(threshold)].all()


def test_rounding_of_the_limit_counts():
    # 0.9001 lies between two float16 numbers: a comparison that rounds it up would lose what was rounded down to 0.8999
    assert half_limit(0.9001, 1.0, 1.0, 1) <= np.float16(0.9001) == np.float16(0.9)
    assert half_limit(1e-3, 1.0, 1.0, 4_096) < 1e-3


@pytest.mark.parametrize("is_same", [True, False])
@pytest.mark.parametrize("n_shares", [1, 3])
@pytest.mark.parametrize("max_products", [1, 100_000, 10**9])
def test_pieces_hold_each_wanted_product_once(is_same, n_shares, max_products):
    grid = Grid(700, 700 if is_same else 330, is_same, SMALL)
    seen = []
    for share in range(n_shares):
        left = grid.strips()[share::n_shares]
        while left:
            pieces = grid.cut(left, max_products)
            places = np.arange(pieces[-1].end)
            assert pieces[-1].end <= max_products or sum(piece.n_strips for piece in pieces) == 1
            assert all(piece.width % BLOCK == 0 for piece in pieces)
            seen += zip(*(ends.tolist() for ends in grid.decode(pieces, places)), strict=True)
            left = left[sum(piece.n_strips for piece in pieces) :]
    wanted = [(i, j) for i, j in itertools.product(range(grid.n_rows), range(grid.n_columns)) if not is_same or i < j]
    assert sorted(seen) == wanted


@pytest.mark.parametrize("limits", [{}, {"max_products": 2**16}, {"max_row_bytes": 10_000}])
def test_proposals_are_all_pairs_within_the_threshold_and_few_more(name, limits):
    rng = np.random.default_rng(3)
    rows = with_planted(rng, 900, dim=50)
    rows[17] = 0.0  # like no other
    chosen, others = np.sort(rng.choice(900, 700, replace=False)), np.arange(100, 820)
    for columns in (None, others):
        products = HalfProducts(Device(name, least_products=2**14, **limits), rows, chosen, columns, 0.7, tiling=SMALL)
        found = [np.concatenate(ends) for ends in zip(*products.pairs(products.grid.strips()), strict=True)]
        with np.errstate(invalid="ignore"):
            similarity = all_similarities(rows)[np.ix_(chosen, chosen if columns is None else columns)]
        near = similarity >= np.float32(0.7)
        near = np.triu(near, 1) if columns is None else near
        pairs = set(zip(*(ends.tolist() for ends in found), strict=True))
        assert len(pairs) == len(found[0])
        assert pairs >= set(zip(*(ends.tolist() for ends in np.nonzero(near)), strict=True))
        assert near.sum() <= len(pairs) < 1.1 * near.sum() + 10


@pytest.mark.parametrize("is_projected", [False, True])
@pytest.mark.parametrize("share", [(0, 1), (1, 3)])
@pytest.mark.parametrize("limits", [{}, {"max_products": 2**21}, {"max_row_bytes": 10_000}])
def test_a_list_is_joined_as_in_numpy(name, is_projected, share, limits):
    """Crowds and balls, thresholds of single rows, rows of several lists, a row of zeros, copies right at the threshold."""
    rng = np.random.default_rng(13)
    crowd = copies_of(rng, power_law(rng, 1, 64)[0], 1_500, rng.uniform(0.95, 0.9999, 1_500))
    planted = with_planted(rng, 2_500, dim=64)
    at_threshold = [copies_of(rng, row / np.linalg.norm(row), 4, 0.9) for row in planted[:100].astype(np.float64)]
    rows = np.concatenate([crowd, planted, *at_threshold]).astype(np.float16)
    rows = rows[rng.permutation(len(rows))]
    rows[99] = 0.0
    n = len(rows)
    assert find_balls(rows, 0.9, np.ones(n, bool))
    thresholds, weights = rng.choice(np.array([0.9, 0.9, 0.99, 2.0], np.float32), n), rng.integers(1, 4, n)
    lists = np.where(rng.random((n, 2)) < 0.5, [3, 5], [5, -1]).astype(np.int32)
    projected, device = projections(rows, 32) if is_projected else None, Device(name, **limits)
    expected, found = (
        self_join(rows, thresholds, weights, Ownership(lists, 5), JoinSettings(3, share, where), projected=projected)
        for where in (None, device)
    )
    assert len(found.src) > 300
    assert device.n_left == 0
    assert_same(found, expected)


def test_a_list_of_many_strips_is_joined_as_in_numpy(name):
    rng = np.random.default_rng(5)
    rows = with_planted(rng, 9_000, dim=32, share=0.5)
    arguments = np.full(9_000, 0.9, np.float32), np.ones(9_000, np.int64), Ownership(np.zeros((9_000, 1), np.int32), 0)
    assert_same(self_join(rows, *arguments, JoinSettings(device=Device(name))), self_join(rows, *arguments))


@pytest.mark.parametrize("n_shares", [1, 4])
@pytest.mark.parametrize("n_filter", [0, 16])
def test_views_are_joined_as_in_numpy(name, n_shares, n_filter):
    rng = np.random.default_rng(4)
    views, wholes = random_views(rng, 500)
    lists = np.where(rng.random((len(views.image), 2)) < 0.3, [1, 4], [4, -1]).astype(np.int32)
    for share in range(n_shares):
        arguments = (views, Ownership(lists, 4), wholes[views.image], ViewRule(0.8, 0.85, n_filter))
        expected, found = (join_views(*arguments, JoinSettings(share=(share, n_shares), device=device)) for device in (None, Device(name)))
        assert len(found.src)
        assert_same(found, expected, ("src", "dst", "similarity", "turn"))


@pytest.mark.parametrize(("largest", "is_enough"), [(2**20, True), (2**12, False)])
def test_out_of_memory_takes_less_and_then_the_cpu(torch, monkeypatch, largest, is_enough):
    """A device that holds so many products at a time and no more."""
    rng = np.random.default_rng(6)
    rows = with_planted(rng, 3_000, dim=32)
    arguments = np.full(3_000, 0.8, np.float32), np.ones(3_000, np.int64), Ownership(np.zeros((3_000, 1), np.int32), 0)
    expected, empty, asked = self_join(rows, *arguments), torch.empty, []

    def small(size, **options):
        asked.append(size)
        if size > largest:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more than there is.")
        return empty(size, **options)

    monkeypatch.setattr(torch, "empty", small)
    device = Device("cpu")
    assert_same(self_join(rows, *arguments, JoinSettings(device=device)), expected)
    assert max(asked) > largest
    assert (device.n_left == 0) == is_enough
    assert is_enough or device.n_left == len(Grid(3_000, 3_000, True).strips())


def test_other_errors_are_raised_and_what_is_full_in_between_is_tried_in_parts(torch, monkeypatch):
    rows = with_planted(np.random.default_rng(6), 1_000, dim=32)
    products = HalfProducts(Device("cpu"), rows, np.arange(1_000), None, 0.8)
    expected = [np.concatenate(ends) for ends in zip(*products.pairs(products.grid.strips()), strict=True)]
    above = torch_ops.places_above

    def full(products, blocks, limit):
        if len(blocks) > 100:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")
        return above(products, blocks, limit)

    monkeypatch.setattr(torch_ops, "places_above", full)
    products = HalfProducts(Device("cpu"), rows, np.arange(1_000), None, 0.8)
    found = [np.concatenate(ends) for ends in zip(*products.pairs(products.grid.strips()), strict=True)]
    assert all(np.array_equal(*ends) for ends in zip(found, expected, strict=True))
    monkeypatch.setattr(torch, "mm", lambda *arguments, **options: above(None, None, None))
    with pytest.raises(TypeError):
        list(HalfProducts(Device("cpu"), rows, np.arange(1_000), None, 0.8).pairs([(0, 0)]))


def lists_by_float64(rows, quantizer, nprobe):
    exact = rows.astype(np.float64) @ quantizer.centroids.T.astype(np.float64) - quantizer.offsets
    return np.lexsort((np.broadcast_to(np.arange(exact.shape[1]), exact.shape), -exact), axis=1)[:, :nprobe]


@pytest.mark.parametrize("nprobe", [1, 8, 60])
def test_lists_are_those_of_float64_on_any_device(name, nprobe):
    rng = np.random.default_rng(8)
    centroids = power_law(rng, 60, 24).astype(np.float32)
    centroids[10:20] = centroids[20:30] + rng.normal(0, 3e-7, (10, 24)).astype(np.float32)  # nearer than float32 can tell
    centroids[30:42] = centroids[42]  # more equal ones than are looked at
    offsets = np.repeat(rng.normal(0, 0.05, 6), 10).astype(np.float32)
    offsets[10:20], offsets[30:42] = offsets[20:30], offsets[42]
    quantizer = Quantizer(centroids, offsets)
    rows = power_law(rng, 3_000, 24).astype(np.float32)
    on_cpu, on_device = quantizer.assign(rows, nprobe), quantizer.assign(rows, nprobe, Device(name))
    assert np.array_equal(on_device, on_cpu)
    assert np.array_equal(on_cpu, lists_by_float64(rows, quantizer, nprobe))


def test_lists_are_found_in_parts_or_on_the_cpu_where_memory_is_short(torch, monkeypatch):
    rng = np.random.default_rng(8)
    quantizer = Quantizer(power_law(rng, 40, 16).astype(np.float32), np.zeros(40, np.float32))
    rows = power_law(rng, 1_000, 16).astype(np.float32)
    expected, addmm = quantizer.assign(rows, 4), torch.addmm
    for largest in (200, 10):

        def small(offsets, part, columns, largest=largest):
            if len(part) > largest:
                raise RuntimeError("CUDA out of memory")
            return addmm(offsets, part, columns)

        monkeypatch.setattr(torch, "addmm", small)
        assert np.array_equal(quantizer.assign(rows, 4, Device("cpu")), expected)


def test_settings_of_the_process_are_put_back(torch):
    settings = torch.backends.cuda.matmul
    keys = [
        key for key in ("allow_fp16_reduced_precision_reduction", "allow_fp16_accumulation", "fp32_precision") if hasattr(settings, key)
    ]

    def now():
        return {key: getattr(settings, key) for key in keys}

    before = now()
    for value in (True, False):
        settings.allow_fp16_reduced_precision_reduction = value
        set_by_user = now()
        with torch_ops.float32_sums():
            assert not settings.allow_fp16_reduced_precision_reduction
        assert now() == set_by_user
    settings.allow_fp16_reduced_precision_reduction = before["allow_fp16_reduced_precision_reduction"]
    assert now() == before


def test_auto_is_the_cpu_where_nothing_speaks_of_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(torch_ops, "may_have_gpu", lambda: devices.may_have_gpu([str(tmp_path / "nvidiactl")]))
    assert choose_device("auto") is None
    assert choose_device("cpu") is None
    (tmp_path / "nvidiactl").touch()
    asked = []
    monkeypatch.setattr(torch_ops, "reason_against", lambda name: asked.append(name) or "no kernel image")
    assert choose_device("auto") is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert choose_device("auto") is None
    assert asked == ["cuda:0"]


def test_cuda_without_a_gpu_says_so_in_a_line(torch, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    torch_ops.reason_against.cache_clear()
    with pytest.raises(
        ConfigError, match=r"engine\.device=cuda: expected a CUDA device .* cuda:0 is none .*; install .* set engine\.device=auto"
    ) as caught:
        choose_device("cuda")
    torch_ops.reason_against.cache_clear()
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(torch_ops.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"'torch'.*webdedup\[gpu\]"):
        choose_device("cuda")


def test_a_task_computes_on_the_gpu_it_was_given(monkeypatch):
    monkeypatch.setattr(torch_ops, "reason_against", lambda name: "")
    monkeypatch.setattr(torch_ops.importlib.util, "find_spec", lambda name: True)
    assert choose_device("cuda").name == "cuda:0"
    with devices.given_gpus(["3", "1"]):
        assert choose_device("auto").name == "cuda:3"


def test_a_run_on_the_cpu_does_not_import_torch():
    code = (
        "import sys, numpy, dedup, dedup.pipeline.run; dedup.near_duplicates(numpy.eye(600), 0.5, exhaustive_below=0); "
        "from dedup.numerics.search.gpu import choose_device; choose_device('cpu'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.gpu
def test_a_gpu_is_found(torch):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    assert choose_device("auto") == choose_device("cuda") == Device("cuda:0")
