"""`benchmarks/quality.py`: its measures against counts by hand, and a whole run on a few procedural photos."""

import json
from pathlib import Path

import numpy as np
import peer_worker
import pytest
import quality
import quality_ours
from PIL import Image
from quality_files import Design, make_files, read_known_pairs
from quality_measures import Pairs, merged_photos, nearest_photos, share_interval, summarize, tally, tally_pairs
from quality_peers import PEERS, Peers, clean_threshold, curve, hash_pairs, pairs_within

from dedup.demo.pictures import procedural_scene
from dedup.numerics.image.planting import CHANGES
from dedup.numerics.statistics.shares import wilson


def design_of(n_photos: int = 4, n_originals: int = 2, changes: tuple[str, ...] = ("one",), known: tuple[int, int] | None = None) -> Design:
    identity = np.arange(n_photos)
    if known:
        identity[known[1]] = known[0]
    return Design(Path("files"), tuple(f"{k}.jpg" for k in range(n_photos)), identity, n_originals, changes)


def pairs_of(*rows: tuple[int, int, float]) -> Pairs:
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return Pairs(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for k in range(5):
        Image.fromarray(procedural_scene(np.random.default_rng(k), (160, 120))).save(folder / f"{k}.png")
    (folder / "again.png").write_bytes((folder / "3.png").read_bytes())
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


def test_interval_of_nothing():
    assert share_interval(0, 0) == (0.0, 1.0)
    assert share_interval(81, 263) == wilson(81, 263)


def test_merges_count_pairs_of_different_photos_once():
    # files of photos 0 1 2 3 and copies of 0 and 1: one component of four files that show three photos, and a lone pair of 0
    identity = np.array([0, 1, 2, 3, 0, 1])
    assert merged_photos([0, 0, 0, 3, 4, 0], identity, 4).tolist() == [1, 2, 6]
    assert merged_photos([0, 1, 2, 3, 0, 1], identity, 4).tolist() == []
    assert merged_photos([0, 1, 2, 2, 0, 1], identity, 4).tolist() == [11]


def test_tally_judges_each_batch_by_itself():
    design = design_of(changes=("one", "two"))
    result = tally([("one", np.array([0, 0, 2, 3, 0, 5])), ("two", np.array([0, 0, 2, 3, 4, 0]))], design)
    assert {change: found.tolist() for change, found in result.found.items()} == {"one": [True, False], "two": [False, True]}
    assert result.merged.tolist() == [1]
    assert result.n_merged == 2
    assert result.n_judged == 12
    figures = summarize(result, {"one": "a", "two": "a"}, design)
    assert figures["families"]["a"]["recall"] == figures["all"]["recall"] == 0.5
    assert figures["merged"] == [("0.jpg", "1.jpg")]
    assert figures["false_rate"] == pytest.approx(2 / 12)


def test_known_pairs_are_no_merges():
    labels = np.array([0, 0, 2, 3, 0, 0])
    assert tally([("one", labels)], design_of()).merged.tolist() == [1]
    result = tally([("one", labels)], design_of(known=(0, 1)))
    assert len(result.merged) == 0
    assert result.n_judged == 3


def test_thresholds_are_judged_through_components():
    design, peer = design_of(), PEERS[0]
    # the copy of 0 is found at 5; at 7 it joins photos 0 and 2
    pairs = {"one": pairs_of((0, 4, 5), (2, 4, 7), (1, 5, 9))}
    assert tally_pairs(pairs, 5, design).found["one"].tolist() == [True, False]
    assert tally_pairs(pairs, 7, design).merged.tolist() == [2]
    assert clean_threshold(pairs, peer, design) == 6
    assert nearest_photos(pairs, design) == [(7, 0, 2)]
    assert clean_threshold({"one": pairs_of((0, 1, 0))}, peer, design) is None
    assert clean_threshold({"one": pairs_of()}, peer, design) == peer.sweep[-1]
    steps = list(curve(pairs, peer, design))
    assert [threshold for threshold, _ in steps] == list(peer.sweep)
    assert [len(result.merged) for _, result in steps[:5]] == [0, 0, 0, 0, 1]


def test_similarities_have_their_sign_turned():
    design, fastdup = design_of(), PEERS[-1]
    pairs = {"one": pairs_of((0, 4, -0.97), (2, 3, -0.91))}
    threshold = clean_threshold(pairs, fastdup, design)
    assert threshold == pytest.approx(-0.910001)
    assert tally_pairs(pairs, threshold, design).found["one"].tolist() == [True, False]


def test_hashes_are_compared_bit_by_bit():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 2**64, (2, 9, 4), dtype=np.uint64)
    second = rng.integers(0, 2**64, (5, 4), dtype=np.uint64)
    bits = np.unpackbits(first.view(np.uint8), axis=-1), np.unpackbits(second.view(np.uint8), axis=-1)
    expected = (bits[0][:, :, None] != bits[1]).sum(-1).min(0)
    found = pairs_within(first, second, 125, max_cells=7)  # several blocks
    assert len(found.src)
    assert set(zip(found.src.tolist(), found.dst.tolist(), strict=True)) == set(
        zip(*map(np.ndarray.tolist, np.nonzero(expected <= 125)), strict=True)
    )
    assert (found.distance == expected[found.src, found.dst]).all()


def test_hash_pairs_number_files_by_their_place():
    design = design_of(3, 2)
    digits = {
        "base/000000.jpg": "00" * 8,
        "base/000002.jpg": "ff" * 8,
        "one/000000.jpg": "01" + "00" * 7,
        "one/000001.jpg": "03" + "00" * 7,
    }
    pairs = hash_pairs({name: [value] for name, value in digits.items()}, design, 4)["one"]
    assert sorted(zip(*map(np.ndarray.tolist, pairs), strict=True)) == [(3, 0, 1.0), (3, 4, 1.0), (4, 0, 2.0)]


@pytest.mark.parametrize("turning", [50, 51, 69, 70, 71, 88, 100])
def test_the_laxest_clean_threshold(turning):
    assert quality_ours.clean_percent(lambda percent: percent >= turning, start=70) == turning


def test_parts_with_unknown_keys_are_left_out():
    parts = [("default", ()), ("there", ("search.views=true",)), ("not yet", ("search.views=true", "nothing.such=1"))]
    assert [label for label, _ in quality_ours.available_parts(parts)] == ["default", "there"]
    assert quality_ours.available_parts()[0] == ("default", ())


def test_files_are_written_once_and_hold_what_is_planted(photos, tmp_path):
    def make(changes, out="a"):
        return make_files(tmp_path / out, photos, None, changes, n_originals=2, max_side=100, seed=3)

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    design = make(["mirror", "noise_10"])
    assert len(design.photos) == 6  # without the broken one
    assert len(np.unique(design.identity)) == 5  # equal bytes are one photo
    assert all(path.exists() for change in design.changes for path in design.batch(change))
    original, mirrored = (np.asarray(Image.open(path)).astype(int) for path in (design.base_file(0), design.copy_file("mirror", 0)))
    assert max(original.shape) == 100
    assert np.abs(original - mirrored[:, ::-1]).mean() < 4
    written = design.copy_file("noise_10", 1).stat().st_mtime_ns
    assert make(["mirror", "noise_10"]).photos == design.photos
    assert design.copy_file("noise_10", 1).stat().st_mtime_ns == written
    # a selection plants the same copies
    assert make(["noise_10"], "b").copy_file("noise_10", 1).read_bytes() == design.copy_file("noise_10", 1).read_bytes()
    with pytest.raises(SystemExit, match="another run"):
        make(["mirror"])


def test_known_pairs_by_name_or_path(tmp_path):
    listed = tmp_path / "known.csv"
    listed.write_text("a,b\n# a remark\nx/1.jpg,2.jpg\n\n")
    assert read_known_pairs(listed, ["x/1.jpg", "y/2.jpg"]) == [(0, 1)]
    assert read_known_pairs(None, []) == []
    listed.write_text("x/1.jpg,missing.jpg\n")
    with pytest.raises(SystemExit, match=r"missing\.jpg"):
        read_known_pairs(listed, ["x/1.jpg"])


def test_a_whole_run_without_peers(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quality_ours, "PARTS", (("default", ()), ("not yet", ("nothing.such=1",))))
    options = ["--originals", "3", "--families", "grey,mirror", "--max-side", "160", "--out", str(tmp_path)]
    report = quality.main([str(photos), *options])
    figures = report["tools"]["dedup"]["default"]
    assert figures["changes"]["grey"]["recall"] == 1.0
    assert figures["families"]["mirror"]["n"] == 3
    assert figures["merges"] == 0
    assert report["tools"]["dedup"]["clean"]["threshold"] == figures["threshold"]
    assert report["tools"]["PDQ"] == {"not_run": "no --peers-python given"}
    assert json.loads((tmp_path / "quality.json").read_text())["n_photos"] == 6
    printed = capsys.readouterr().out
    assert "| grey | 1.00 (0.44–1.00) |" in printed
    assert "- fastdup: not run: no --peers-python given" in printed
    assert not (tmp_path / "scratch").exists()
    # a column alone, the others from the earlier run
    again = quality.main([str(photos), *options, "--only", "PDQ", "--peers-python", str(tmp_path / "no-python")])
    assert again["tools"]["dedup"] == json.loads(json.dumps(report["tools"]["dedup"]))
    assert list(again["tools"]) == list(report["tools"])
    assert "no-python" in again["tools"]["PDQ, 8 turns"]["not_run"]
    (tmp_path / "known.csv").write_text("0.png,1.png\n")
    with pytest.raises(SystemExit, match="other photos"):
        quality.main([str(photos), *options, "--only", "PDQ", "--known-pairs", str(tmp_path / "known.csv")])


def test_the_picture(tmp_path, require_extra):
    require_extra("matplotlib")
    from plot_quality import draw

    design = design_of(changes=("jpeg_30", "mirror"))
    labels = np.array([0, 1, 2, 3, 0, 5])
    families = {change.name: change.family for change in CHANGES}
    figures = summarize(tally([(change, labels) for change in design.changes], design), families, design)
    tools = {"one": {"default": figures, "clean": figures}, "two": {"default": figures, "clean": None}, "three": {"not_run": "why"}}
    report = {"n_originals": 2, "n_photos": 4, "changes": list(design.changes), "families": ["jpeg", "mirror"], "tools": tools}
    draw(report, tmp_path / "quality.png")
    with Image.open(tmp_path / "quality.png") as picture:
        assert picture.width > 1000


def test_peers_that_are_not_there_say_so(tmp_path):
    design = design_of()
    for python in (str(tmp_path / "no-python"), ""):
        entry = quality.measure_peer(PEERS[2], Peers(python, design, tmp_path), design)
        assert list(entry) == ["not_run"]
    assert "imports nothing of this project" in (peer_worker.__doc__ or "")
