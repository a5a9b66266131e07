"""What a report shows, against the tables of small runs read in plain Python."""

import base64
import collections
import gzip
import html.parser
import io
import re
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shared_workers
from PIL import Image
from run_tables import table
from shard_data import Sample, detailed, encode, make_samples, write_shards, write_tar
from typer.testing import CliRunner
from vector_data import copies_of, power_law

import dedup
from dedup import schemas
from dedup.cli.main import app
from dedup.config.key import STAGE_NAMES
from dedup.config.load import load_config
from dedup.engines.local import LocalEngine
from dedup.errors import ConfigError, DedupError, InputError, MissingExtra, RunDirectoryError
from dedup.numerics.similarity import exact_similarity
from dedup.pipeline.stages import STAGES
from dedup.report import below, build, figures, galleries, queries
from dedup.report import build as reported
from dedup.report import cards as pictures
from dedup.report import galleries as pairs
from dedup.report import queries as asking
from dedup.report.cards import facts_of
from dedup.runs.directory import Run
from dedup.storage.urls import read_bytes


@pytest.fixture(scope="module", autouse=True)
def _jinja2(require_extra, with_reports):
    require_extra("jinja2")


class Page(html.parser.HTMLParser):
    """Texts by section, and what the page would fetch."""

    def __init__(self, data):
        super().__init__()
        self.fetched, self.images, self.masks, self.texts, self.tags = [], [], [], collections.defaultdict(str), collections.Counter()
        self._section, self._skipped = "", False
        self.feed(data.decode())

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags[tag] += 1
        self._skipped = tag in ("style", "script")
        if tag == "section":
            self._section = values["id"]
        if tag == "img":
            (self.masks if values.get("class") == "mask" else self.images).append(values["src"])
        self.fetched += [values[name] for name in ("src", "srcset", "data", "poster") if name in values]
        assert not any(name.startswith("on") or name == "style" for name in values), attributes
        if tag == "link":
            self.fetched.append(values["href"])

    def handle_endtag(self, tag):
        self._skipped = False

    def handle_data(self, data):
        if not self._skipped:
            self.texts[self._section] += data


def run(shards, run_dir, *settings, **options):
    given = [f"input.shards={shards}", f"output.run_dir={run_dir}", "engine.workers=1", "report.enabled=false", *settings]
    return shared_workers.run(load_config(None, given), **options)


def ask(run_dir):
    opened = reported.open_reported(str(run_dir))
    return asking.TableReader(LocalEngine(1), opened), opened


@pytest.fixture(scope="module")
def samples():
    made = make_samples(n_scenes=48, seed=5)
    for seed in range(4):  # pictures that are alike, and differ in a corner
        picture = detailed(seed)
        other = picture.copy()
        other.paste(detailed(900 + seed).crop((0, 0, 60, 60)), (80, 50))
        made += [Sample(f"one{seed}", encode(picture), f"corner {seed}"), Sample(f"two{seed}", encode(other), f"corner {seed}")]
    return made


@pytest.fixture(scope="module")
def shards(samples, tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("report") / "shards", samples)


@pytest.fixture(scope="module")
def run_dir(shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("reported") / "out"
    run(shards, out)
    return out


@pytest.fixture(scope="module")
def written(run_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "r.html"
    return dedup.write_report(str(run_dir), str(out)), out.read_bytes()


def test_the_stages_are_those_that_keys_and_records_know():
    assert tuple(stage.name for stage in STAGES) == STAGE_NAMES


def test_the_largest_groups_are_drawn_with_their_keepers_first(run_dir):
    asker, opened = ask(run_dir)
    found = galleries.galleries(asker, opened, n=5, seed=0)
    sizes = collections.Counter(row["component_id"] for row in table(run_dir, "groups").to_pylist())
    order = sorted((name for name, n in sizes.items() if n > 1), key=lambda name: (-sizes[name], name))
    assert [one.component_id for one in found.largest] == order[:5]
    kept = {row["sample_id"] for row in table(run_dir, "manifest").to_pylist()}
    dropped = {row["sample_id"]: row for row in table(run_dir, "duplicates").to_pylist()}
    for one in found.largest:
        members = {row["sample_id"] for row in table(run_dir, "groups").to_pylist() if row["component_id"] == one.component_id}
        assert {card.sample_id for card in one.cards} == members  # all of them: the groups are small
        roles = [card.role for card in one.cards]
        assert roles == sorted(roles, key=lambda role: role != "kept")
        assert [card.sample_id in kept for card in one.cards] == [role == "kept" for role in roles]
        copies = [card for card in one.cards if card.role != "kept"]
        assert [card.similarity for card in copies] == [dropped[card.sample_id]["similarity_to_keeper"] for card in copies]
        assert [card.similarity for card in copies] == sorted((card.similarity for card in copies), reverse=True)
    assert len(found.listed) == found.n_groups == sum(n > 1 for n in sizes.values())


def test_random_groups_depend_on_the_seed_alone(run_dir):
    asker, opened = ask(run_dir)
    drawn = [[one.component_id for one in galleries.galleries(asker, opened, n=4, seed=seed).random] for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1]
    assert len({tuple(some) for some in drawn}) > 1
    assert all(len(set(some)) == 4 for some in drawn)


def test_random_groups_are_drawn_evenly():
    """Of consecutive component_ids of several partitions, each is drawn about as often."""

    class Layout:
        def table(self, name):
            return statistics

    ids = np.concatenate([(np.int64(part) << 32) + np.arange(50) for part in range(4)])
    columns = {name: np.full(200, 2) for name in ("duplication_count", "template_count", "scene_count")}
    columns |= {"component_id": ids, "n_exact": np.zeros(200, int), "n_urls": np.ones(200, int)}
    columns |= {"n_captions": np.ones(200, int), "caption": pa.nulls(200, pa.string()), "caption_share": pa.nulls(200, pa.float64())}
    columns |= {"min_similarity": np.ones(200), "mean_similarity": np.ones(200)}
    statistics = schemas.conform(pa.table(columns), schemas.STATISTICS)
    asker = asking.TableReader(LocalEngine(1), Layout())
    counts = collections.Counter()
    for seed in range(50):
        rows = asker.rows(queries.RANDOM, n=20, shift=(seed * 69_069 + 12_345) % 2_147_483_647)
        assert len(rows) == 20
        counts.update(row["component_id"] for row in rows)
    drawn = np.array([counts[name] for name in ids.tolist()])  # 5 each, were they drawn evenly
    assert (drawn == 0).sum() < 20
    assert drawn.max() <= 18
    halves = drawn.reshape(4, 50).sum(1)
    assert (abs(halves - 250) < 75).all()


def test_weakest_pairs_and_refused_ones_are_those_of_the_tables(run_dir):
    asker, opened = ask(run_dir)
    component = {row["sample_id"]: row["component_id"] for row in table(run_dir, "groups").to_pylist()}
    weakest = {}
    for row in table(run_dir, "edges").to_pylist():
        ends = {component.get(row["src"]), component.get(row["dst"])}
        if row["kind"] == "near" and row["source"] == "whole" and row["confirmed"] is not False and len(ends) == 1:
            name = ends.pop()
            weakest[name] = min(weakest.get(name, 2.0), row["similarity"])
    expected = sorted((value, name) for name, value in weakest.items())[: galleries.N_BORDERLINE]
    found = galleries.galleries(asker, opened, n=0, seed=0).weakest
    assert [(one.min_similarity, one.component_id) for one in found] == expected

    refused = table(run_dir, "refused").to_pylist()
    assert len(refused) >= 4
    shown = pairs.pairs(asker, opened, seed=0)
    for reason, drawn in shown.refused:
        of_reason = sorted((-row["similarity"], row["src"], row["dst"]) for row in refused if row["reason"] == reason.name)
        assert reason.part.n == len(of_reason)
        assert [(-pair.similarity, pair.src.sample_id, pair.dst.sample_id) for pair in drawn] == of_reason[: len(drawn)]
    assert sum(reason.part.n for reason, _ in shown.refused) == len(refused)
    limit = opened.config.confirm.max_distance
    distances = sorted(row["distance"] for row in refused if row["reason"] == "different" and row["distance"] > np.float32(limit))
    assert [pair.distance for pair in shown.nearly] == distances[: len(shown.nearly)]
    judged = sorted((row["distance"] for row in table(run_dir, "edges").to_pylist() if row["distance"] is not None), reverse=True)
    judged = judged[: len(shown.confirmed)]
    assert [pair.distance for pair in shown.confirmed] == judged


def test_bins_hold_every_pair(run_dir):
    asker, _ = ask(run_dir)
    near = [row for row in table(run_dir, "edges").to_pylist() if row["kind"] == "near" and row["source"] == "whole"]
    counts = figures.bins(asker).joined
    assert counts == collections.Counter(int(np.floor(row["similarity"] * 200 + 1e-4)) for row in near)
    assert sum(counts.values()) == len(near)
    refused = [row["distance"] for row in table(run_dir, "refused").to_pylist() if row["distance"] is not None]
    assert figures.bins(asker).refused_distance == collections.Counter(int(np.floor(value * 100 + 1e-4)) for value in refused)


def test_captions_reasons_and_sizes(run_dir, samples):
    asker, opened = ask(run_dir)
    embedded = [row["caption"] for row in table(run_dir, "metadata").to_pylist()]
    often = [(n, caption) for caption, n in collections.Counter(embedded).items() if n > 1]
    expected = sorted(often, key=lambda entry: (-entry[0], entry[1]))
    found = figures.captions(asker)
    assert [(row["n_samples"], row["caption"].shown) for row in found] == expected[:100]
    grouped = collections.Counter()
    for row in table(run_dir, "captions").to_pylist():
        grouped[row["caption"]] += row["n_samples"]
    assert all(row["n_in_groups"] == grouped[row["caption"].shown] for row in found)
    rejected = figures.rejected(asker)
    assert {one.name: one.part.n for one in rejected} == collections.Counter(
        row["reason"] for row in table(run_dir, "rejected").to_pylist()
    )
    assert sum(part.n for part in figures.accounts(opened)) == len(samples)
    _, rows = figures.sizes(opened)
    assert sum(row["n_images"] for row in rows) == len(embedded)


def brute_below(run_dir, threshold, low):
    """All pairs below the threshold, by exact similarity."""
    ids = np.sort(table(run_dir, "metadata")["sample_id"].to_numpy())
    rows = Run(str(run_dir)).vectors().take(ids)
    src, dst = np.triu_indices(len(ids), 1)
    similarity = exact_similarity(rows[src], rows[dst])
    near = (similarity < np.float32(threshold)) & (similarity >= low)
    order = np.lexsort((ids[dst[near]], ids[src[near]], -similarity[near]))
    return ids[src[near]][order], ids[dst[near]][order], similarity[near][order], similarity


def test_pairs_below_the_threshold_are_found_exactly(run_dir):
    """With as many queries as images the sample is everything."""
    n = {}
    for row in table(run_dir, "partitions").to_pylist():
        n[row["partition"]] = n.get(row["partition"], 0) + row["n_samples"]
    threshold = 0.9
    low = figures.lowest_shown(threshold)
    found = below.sample_below(Run(str(run_dir)), n, threshold, low=low, n_bins=200, seed=3)
    assert found.n_queries == found.n_vectors == found.n_all == sum(n.values()) < 512
    src, dst, similarity, every = brute_below(run_dir, threshold, low)
    seen, chosen = collections.Counter(), []
    for place, ends in enumerate(zip(src.tolist(), dst.tolist(), strict=True)):
        if max(seen[end] for end in ends) < 2:
            chosen.append(place)
            seen.update(ends)
    assert found.src.tolist() == src[chosen].tolist()
    assert found.dst.tolist() == dst[chosen].tolist()
    assert np.array_equal(found.similarity, similarity[chosen])
    counted = every[every >= low]
    # both ends ask; float32 products may lie in the bin beside
    assert abs(int(found.bins.sum()) - 2 * len(counted)) <= 4
    again = below.sample_below(Run(str(run_dir)), n, threshold, low=low, n_bins=200, seed=3)
    assert np.array_equal(found.bins, again.bins)


def test_a_part_of_many_vectors_is_compared(tmp_path):
    rng = np.random.default_rng(0)
    rows = power_law(rng, 3_000, 32)
    rows[2_999] = copies_of(rng, rows[0], 1, 0.93)[0]
    (tmp_path / "embeddings" / "img_emb").mkdir(parents=True)
    for part in range(3):
        np.save(
            tmp_path / "embeddings" / "img_emb" / f"img_emb_{part:05d}.npy", rows[1_000 * part : 1_000 * part + 1_000].astype(np.float16)
        )
    sizes = dict.fromkeys(range(3), 1_000)
    limits = below.BelowLimits(n_vectors=900, n_block=100)
    part = below.sample_below(Run(str(tmp_path)), sizes, 0.95, low=0.9, n_bins=200, seed=0, limits=limits)
    assert (part.n_vectors, part.n_all, part.n_queries) == (900, 3_000, 512)
    limits = below.BelowLimits(n_queries=3_000, n_vectors=3_000, n_block=100)
    whole = below.sample_below(Run(str(tmp_path)), sizes, 0.95, low=0.9, n_bins=200, seed=0, limits=limits)
    assert (0, (2 << 32) + 999) in set(zip(whole.src.tolist(), whole.dst.tolist(), strict=True))
    empty = below.sample_below(Run(str(tmp_path)), {}, 0.95, low=0.9, n_bins=200, seed=0)
    assert (len(empty.src), empty.n_queries) == (0, 0)


def test_the_page_holds_its_pictures_and_asks_for_nothing(written, samples):
    summary, data = written
    page = Page(data)
    assert summary.n_bytes == len(data) < build.LIMITS.max_bytes
    assert summary.n_pictures > 20
    assert not summary.notes
    assert all(source.startswith(("data:image/jpeg;base64,", "data:image/png;base64,")) for source in page.fetched)
    assert all(source.startswith("data:image/png;base64,") for source in page.masks)
    for source in page.images:
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as picture:
            assert max(picture.size) <= 160
    head = data.decode()[: data.decode().index("<title>")]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', head).group(1)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert page.tags["script"] == page.tags["style"] == 1
    for name in (
        "summary",
        "sizes",
        "kinds",
        "rejected",
        "similarity",
        "refused",
        "largest",
        "random",
        "borderline",
        "chains",
        "groups",
        "captions",
    ):
        assert page.texts[name].strip(), name
    assert f"{len(samples):,}" in page.texts["summary"]
    assert "search.min_similarity" in page.texts["configuration"]
    assert "images/s" in page.texts["stages"]


def test_pictures_are_those_of_their_samples(run_dir, samples):
    asker, opened = ask(run_dir)
    known = facts_of(asker, table(run_dir, "metadata")["sample_id"].to_pylist())
    places = {sample_id: facts.place for sample_id, facts in known.items()}
    found = pictures.read_pictures(Run(str(run_dir)), places, list(places), max_pixels=opened.config.input.max_pixels)
    assert (len(found.jpegs), found.n_unread, found.n_left_out) == (len(known), 0, 0)
    images = {sample.key: sample.image for sample in samples}
    for sample_id, data in found.jpegs.items():
        with Image.open(io.BytesIO(data)) as small, Image.open(io.BytesIO(images[places[sample_id].key])) as whole:
            expected = whole.convert("RGB").resize(small.size, Image.Resampling.BOX)
            assert np.abs(np.asarray(small, np.int16) - np.asarray(expected, np.int16)).mean() < 9


def test_a_host_that_is_gone_is_not_asked_for_ever(run_dir, monkeypatch):
    asked = []

    def refuse(self, place):
        asked.append(place)
        raise InputError("gone")

    monkeypatch.setattr(pictures.PictureReader, "read", refuse)
    places = {n: pictures.Place(n, f"s3://bucket/{n // 2:05d}.tar", str(n), 512, 10) for n in range(500)}
    found = pictures.read_pictures(Run(str(run_dir)), places, list(places), max_pixels=10)
    assert (len(asked), found.n_unread, found.trouble) == (30, 500, "gone")
    asked.clear()
    places = {n: pictures.Place(n, f"/data/{n // 10:05d}.tar", str(n), 512, 10) for n in range(500)}
    assert pictures.read_pictures(Run(str(run_dir)), places, list(places), max_pixels=10).n_unread == 500
    assert len(asked) == 3 * 50


def test_two_reports_differ_in_their_date_alone(run_dir, tmp_path):
    def without_date(path):
        dedup.write_report(str(run_dir), str(tmp_path / path))
        return re.sub(rb"<time>[^<]*</time>", b"", (tmp_path / path).read_bytes())

    assert without_date("a.html") == without_date("b.html")
    other = tmp_path / "c.html"
    dedup.write_report(str(run_dir), str(other), n_galleries=2, seed=9)
    assert len(other.read_bytes()) < len((tmp_path / "a.html").read_bytes())


def test_a_run_without_its_tars(shards, run_dir, tmp_path):
    copy = tmp_path / "shards"
    shutil.copytree(Path(shards).parent, copy)
    run(f"{copy}/*.tar", tmp_path / "run")
    for path in copy.iterdir():
        path.unlink()
    summary = dedup.write_report(str(tmp_path / "run"))
    page = Page((tmp_path / "run" / "report.html").read_bytes())
    assert summary.n_pictures == 0
    assert not page.images
    assert "no pictures: none of" in summary.notes[0]
    assert "was it moved since it was embedded?" in page.texts[""]
    assert page.texts["largest"].count("no picture") > 10


def test_a_few_pictures_that_are_gone(shards, tmp_path):
    copy = tmp_path / "shards"
    shutil.copytree(Path(shards).parent, copy)
    run(f"{copy}/*.tar", tmp_path / "run")
    next(iter(sorted(copy.iterdir()))).write_bytes(b"")
    summary = dedup.write_report(str(tmp_path / "run"))
    assert summary.n_pictures > 10
    assert "pictures could not be read" in summary.notes[0]


def test_pictures_stay_within_their_room(run_dir, tmp_path):
    whole = dedup.write_report(str(run_dir), str(tmp_path / "whole.html"))
    limits = build.Limits(max_bytes=whole.n_bytes - 40_000)
    small = build.write_report(str(run_dir), str(tmp_path / "small.html"), engine=LocalEngine(1), limits=limits)
    assert small.n_bytes <= limits.max_bytes
    assert 0 < small.n_pictures < whole.n_pictures
    assert "pictures were left out" in small.notes[0]
    # every gallery of the largest groups has its keeper all the same
    page = (tmp_path / "small.html").read_text()
    section = page[page.index('<section id="largest">') : page.index('<section id="random">')]
    assert all("<img" in part[: part.index("</li>")] for part in section.split('<ul class="cards">')[1:] if '<li class="card kept"' in part)


def test_compressed_tars_are_read_once_and_not_too_many(tmp_path):
    for number in range(3):
        write_tar(tmp_path / "plain.tar", [Sample(f"{number}{seed}", encode(detailed(seed))) for seed in range(3)])
        (tmp_path / f"{number}.tar.gz").write_bytes(gzip.compress((tmp_path / "plain.tar").read_bytes()))
    (tmp_path / "plain.tar").unlink()
    run(f"{tmp_path}/*.tar.gz", tmp_path / "run")
    whole = dedup.write_report(str(tmp_path / "run"))
    assert whole.n_pictures == 9
    part = build.write_report(str(tmp_path / "run"), engine=LocalEngine(1), limits=build.Limits(most_compressed=1))
    assert part.n_pictures == 3
    assert "their tars are compressed" in part.notes[0]


def test_a_run_without_duplicates(tmp_path):
    unique = [Sample(f"d{seed}", encode(detailed(seed)), None) for seed in range(3)]
    write_tar(tmp_path / "a.tar", [*unique, Sample("broken", b"broken")])
    run(tmp_path / "a.tar", tmp_path / "unique")
    dedup.write_report(str(tmp_path / "unique"))
    page = Page((tmp_path / "unique" / "report.html").read_bytes())
    assert "no groups of copies" in page.texts["largest"]
    assert "No caption occurs twice" in page.texts["captions"]
    assert "undecodable_image" in page.texts["rejected"]


def test_embeddings_without_pictures(tmp_path):
    rng = np.random.default_rng(0)
    rows = power_law(rng, 300, 48)
    for place in range(20):
        rows[280 + place] = copies_of(rng, rows[place], 1, 0.955 + 0.002 * place)[0]
    (tmp_path / "e").mkdir()
    np.save(tmp_path / "e" / "a.npy", rows.astype(np.float16))
    pq.write_table(pa.table({"key": [str(k) for k in range(300)], "caption": ["c"] * 300}), tmp_path / "e" / "a.parquet")
    given = ["encoder.name=precomputed", f"input.embeddings={tmp_path}/e", f"output.run_dir={tmp_path}/run", "engine.workers=1"]
    shared_workers.run(load_config(None, [*given, "report.enabled=false"]))
    summary = dedup.write_report(str(tmp_path / "run"))
    assert "don't say where their images lie" in summary.notes[0]
    page = Page((tmp_path / "run" / "report.html").read_bytes())
    assert not page.images
    assert "similarity alone decides" in page.texts[""]
    assert "not judged by their pixels" in page.texts["refused"]


def test_a_run_on_another_file_system_with_what_it_excludes(shards, samples, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("key:000003\nkey:one0\n")
    run(shards, tmp_path / "run", f"exclude.list={listed}")
    out = "memory://report-test/run"
    fsspec.filesystem("memory").put(f"{tmp_path}/run", "/report-test/run", recursive=True)
    summary = dedup.write_report(out)
    assert summary.path == f"{out}/report.html"
    page = Page(read_bytes(summary.path))
    assert "named by exclude.list" in page.texts["excluded"]
    assert "key:one0" in page.texts["excluded"]
    assert len(page.images) >= summary.n_pictures > 10


def test_a_run_that_adds_to_another(shards, run_dir, tmp_path):
    write_tar(tmp_path / "new.tar", [Sample(f"n{seed}", encode(detailed(seed), quality=70), "new") for seed in range(4)])
    run(tmp_path / "new.tar", tmp_path / "run", f"base.run_dir={run_dir}")
    summary = dedup.write_report(str(tmp_path / "run"))
    assert summary.n_pictures > 20
    assert "adds to an earlier run" in Page((tmp_path / "run" / "report.html").read_bytes()).texts[""]


def test_stages_that_are_missing_are_named(shards, run_dir, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    for name in ("statistics", "targets"):
        (copy / "_stages" / f"{name}.json").unlink()
    summary = dedup.write_report(str(copy))
    assert summary.notes == [
        "the stages statistics and targets are not finished: what is drawn from there is left out; run dedup run … and then dedup report again"
    ]
    page = Page((copy / "report.html").read_bytes())
    assert "The stage statistics is not finished" in page.texts["sizes"]
    assert page.texts["refused"].strip()
    (copy / "_stages" / "manifest.json").unlink()
    with pytest.raises(RunDirectoryError, match=r"no finished stage 'manifest'.*run: dedup run"):
        dedup.write_report(str(copy))
    with pytest.raises(RunDirectoryError, match="holds no run"):
        dedup.write_report(str(tmp_path / "nowhere"))


def test_a_stage_made_from_an_earlier_one_is_told(run_dir, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    path = copy / "_stages" / "groups.json"
    path.write_text(path.read_text().replace('"output_version": ', '"output_version": 9'))
    notes = dedup.write_report(str(copy)).notes
    assert any("the stage manifest was made from an earlier groups" in note for note in notes)


def test_every_whole_run_writes_one_unless_told_not_to(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar", [Sample(f"d{seed}", encode(detailed(seed % 2)), "c") for seed in range(4)])
    given = [f"input.shards={tmp_path}/a.tar", f"output.run_dir={tmp_path}/run", "engine.workers=1"]
    config = load_config(None, given)
    page = tmp_path / "run" / "report.html"
    assert shared_workers.run(load_config(None, [*given, "report.enabled=false"])).report == ""
    assert not page.exists()
    summary = shared_workers.run(config)  # all stages are done: the key belongs to none of them
    assert len(summary.skipped) == len(STAGES)
    assert summary.report == str(page)
    first = page.stat().st_mtime_ns
    assert shared_workers.run(config).report == str(page)
    assert page.stat().st_mtime_ns == first  # it is up to date
    assert shared_workers.run(config, ["targets"], redo=True).report == ""
    config = load_config(None, [*given, "targets.top=1"])
    assert shared_workers.run(config, redo=True).report == str(page)
    assert page.stat().st_mtime_ns > first

    said = []

    class Notes:
        def note(self, text):
            said.append(text)

        def progress(self, progress):
            pass

    def fail(*_, **__):
        raise OSError("the disk is full")

    page.unlink()
    monkeypatch.setattr(build, "write_report", fail)
    assert shared_workers.run(config, reporter=Notes()).report == ""
    assert said == [f"report: not written: OSError: the disk is full; dedup report {tmp_path}/run tries again"]


def test_without_the_extra(run_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "can_write", lambda: False)
    with pytest.raises(MissingExtra, match=r"webdedup\[report\]"):
        dedup.write_report(str(run_dir), str(tmp_path / "r.html"))


def test_the_command(run_dir, tmp_path):
    out = tmp_path / "folder" / "r.html"
    done = CliRunner().invoke(app, ["report", str(run_dir), "--out", str(out), "--galleries", "3", "--seed", "5"])
    assert done.exit_code == 0, done.output
    assert re.fullmatch(rf"{re.escape(str(out))}  [0-9.]+ [kM]B, \d+ pictures\n", done.stdout)
    assert "seed 5" in Page(out.read_bytes()).texts["random"]
    with pytest.raises(ConfigError, match="expected 0 to 100"):
        dedup.write_report(str(run_dir), str(out), n_galleries=101)
    failed = CliRunner().invoke(app, ["report", str(tmp_path / "nowhere")])
    assert isinstance(failed.exception, DedupError)


@pytest.mark.spark
def test_spark_answers_every_question_alike(run_dir, start_spark):
    asker, opened = ask(run_dir)
    engine = start_spark()
    try:
        other = asking.TableReader(engine, opened)
        ids = table(run_dir, "statistics")["component_id"].to_pylist()
        samples = table(run_dir, "metadata")["sample_id"].to_pylist()
        numbers = {"n": 7, "similarity_bins": 200, "distance_bins": 100, "shift": 12_345, "threshold": 0.95, "max_distance": 0.15}
        questions = {name: value for name, value in vars(queries).items() if isinstance(value, queries.Query)}
        assert len(questions) >= 20
        for name, question in questions.items():
            one, two = (some.rows(question, chosen=ids[:9], wanted=samples[::7], **numbers) for some in (asker, other))
            if "ORDER BY" not in question.sql.rpartition(")")[2]:
                one, two = sorted(map(repr, one)), sorted(map(repr, two))
            assert one == two, name
    finally:
        engine.close()
