"""Chains of look-alikes: neighbours are copies, ends are unrelated; what is dropped is near what it is dropped for."""

import collections
import html
import os
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image
from run_tables import table
from shard_data import Sample, detailed, encode, write_shards

import dedup
from dedup.numerics.similarity import exact_similarity
from dedup.runs.directory import Run

N_PICTURES = int(os.environ.get("DEDUP_CHAIN", "240"))  # 10,000 take ten minutes

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("with_reports")]


def chain_of_vectors(n, dim=64, similarity=0.99, seed=0):
    """Unit rows, each at this similarity to the one before, on a path that turns all the time."""
    rng = np.random.default_rng(seed)
    rows = np.empty((n, dim))
    rows[0] = np.eye(dim)[0]
    heading = np.eye(dim)[1]
    for k in range(1, n):
        heading += 0.1 * rng.normal(size=dim)
        heading -= (heading @ rows[k - 1]) * rows[k - 1]
        heading /= np.linalg.norm(heading)
        rows[k] = similarity * rows[k - 1] + np.sqrt(1 - similarity**2) * heading
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def assert_near_their_keepers(run_dir, threshold):
    """Each dropped sample by its own vector, not by what the tables say of it; returns similarities."""
    dropped = table(run_dir, "duplicates")
    store = Run(str(run_dir)).vectors()
    own, kept = (store.take(dropped[name].to_numpy()) for name in ("sample_id", "keeper_id"))
    similarity = exact_similarity(own, kept)
    assert np.array_equal(similarity, dropped["similarity_to_keeper"].to_numpy())
    assert similarity.min() >= np.float32(threshold)
    assert set(dropped["keeper_id"].to_pylist()) <= set(table(run_dir, "manifest")["sample_id"].to_pylist())
    return similarity


def named_chains(run_dir):
    """Samples and groups of each component that the report calls a chain."""
    page = (run_dir / "report.html").read_text()
    section = page[page.index('<section id="chains"') :]
    text = html.unescape(re.sub(r"<[^>]+>", " ", section[: section.index("</section>")]))
    facts = re.findall(r"([\d,]+) samples\s+groups it was cut into\s+([\d,]+)", text)
    return [tuple(int(number.replace(",", "")) for number in fact) for fact in facts]


def test_ten_thousand_vectors(tmp_path):
    """One component of 10^4, more than are compared with every anchor."""
    n, threshold = 10_000, 0.95
    rows = chain_of_vectors(n)
    assert np.isclose((rows[1:] * rows[:-1]).sum(1), 0.99).all()
    assert abs(rows[0] @ rows[-1]) < 0.5
    order = np.random.default_rng(1).permutation(n)
    np.save(tmp_path / "a.npy", rows[order].astype(np.float32))
    pq.write_table(pa.table({"key": [f"{k:05d}" for k in order], "caption": ["a"] * n}), tmp_path / "a.parquet")
    run_dir = tmp_path / "run"
    dedup.run(dedup.load_config(None, [f"input.embeddings={tmp_path}", f"output.run_dir={run_dir}", "encoder.name=precomputed", f"search.min_similarity={threshold}", "engine.workers=2"]))  # fmt: skip
    groups = table(run_dir, "groups")
    assert len(set(groups["raw_component_id"].to_pylist())) == 1
    assert len(groups) == n
    sizes = collections.Counter(groups["component_id"].to_pylist())
    # 8.1 degrees a step, 18.2 to an anchor at most
    assert max(sizes.values()) <= 9
    assert n / 5 <= len(sizes) <= n / 2
    assert_near_their_keepers(run_dir, threshold)
    assert named_chains(run_dir) == [(n, len(sizes))]


def film(n, steps=40):
    """Pictures that turn into each other: some steps from each scene to the next."""
    scenes = [np.asarray(detailed(seed, (96, 80)), dtype=np.float32) for seed in range(n // steps + 2)]
    for k in range(n):
        scene, part = divmod(k, steps)
        picture = scenes[scene] + (scenes[scene + 1] - scenes[scene]) * part / steps
        yield Sample(f"{k:06d}", encode(Image.fromarray(picture.round().astype(np.uint8)), quality=95), "a film")


def test_pictures_that_drift(tmp_path):
    """With the settings that everybody has: pixels are compared."""
    n = N_PICTURES
    order = np.random.default_rng(2).permutation(n)
    shards = write_shards(
        tmp_path / "shards",
        [sample for _, sample in sorted(zip(order.tolist(), film(n), strict=True), key=lambda pair: pair[0])],
        per_shard=250,
    )
    run_dir = tmp_path / "run"
    dedup.run(dedup.load_config(None, [f"input.shards={shards}", f"output.run_dir={run_dir}", "engine.workers=2"]))
    metadata = table(run_dir, "metadata").sort_by("key")
    vectors = Run(str(run_dir)).vectors().take(metadata["sample_id"].to_numpy())
    assert exact_similarity(vectors[1:], vectors[:-1]).min() > 0.99
    assert exact_similarity(vectors[:1], vectors[-1:]) < 0.3
    groups = table(run_dir, "groups")
    raw = collections.Counter(groups["raw_component_id"].to_pylist())
    pieces = collections.Counter(groups["component_id"].to_pylist())
    assert max(raw.values()) > 0.9 * n
    assert max(pieces.values()) <= 40
    similarity = assert_near_their_keepers(run_dir, 0.7)
    dropped = table(run_dir, "duplicates")
    assert len(dropped) + len(table(run_dir, "manifest")) == n
    gaps = [abs(int(key) - int(keeper)) for key, keeper in zip(dropped["key"].to_pylist(), dropped["keeper_key"].to_pylist(), strict=True)]
    assert max(gaps) <= 20
    assert pc.max(dropped["distance_to_keeper"]).as_py() <= 0.15
    assert named_chains(run_dir)[0] == (raw.most_common(1)[0][1], len(set(groups.filter(pc.equal(groups["raw_component_id"], raw.most_common(1)[0][0]))["component_id"].to_pylist())))  # fmt: skip
    print(f"{n:,} pictures: {len(pieces):,} groups of {max(pieces.values())} at most, least similarity to a keeper {similarity.min():.3f}")
