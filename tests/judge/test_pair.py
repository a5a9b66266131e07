"""The one judge of pairs: which turns are tried, what is read, held and remembered."""

import numpy as np
import pyarrow as pa
import pytest

from dedup.demo.pictures import procedural_scene
from dedup.encoders.dct import DctEncoder, turns
from dedup.errors import InputError
from dedup.judge.pair import InMemory, JudgeSettings, PairJudge, likelier_first, likely_turns, turns_of, turns_to_try
from dedup.judge.verdicts import VERDICTS
from dedup.numerics.image.descriptor import VARIANTS, ycbcr_grid
from dedup.numerics.image.planting import plant
from dedup.numerics.judge.compare import compare, turned
from dedup.numerics.judge.picture import Picture

SETTINGS = JudgeSettings("", max_pixels=10**9, min_side=128, max_distance=0.15, keeps_unreadable=False)
KEEPS = JudgeSettings("", max_pixels=10**9, min_side=128, max_distance=0.15, keeps_unreadable=True)


@pytest.fixture(scope="module")
def pictures():
    """An original, a copy of it, its mirror image, and another picture."""
    original = procedural_scene(np.random.default_rng(1), (300, 240))
    copy = plant(original, "jpeg_30", np.random.default_rng(1))
    return {1: original, 2: copy, 3: turned(original, "mirror"), 4: procedural_scene(np.random.default_rng(2), (300, 240))}


class Reader:
    """Says what was read."""

    def __init__(self, pictures):
        self.pictures, self.asked = pictures, []

    def __call__(self, sample_id):
        self.asked.append(sample_id)
        if sample_id not in self.pictures:
            raise InputError(f"no picture of {sample_id}")
        return self.pictures[sample_id]


def test_turns_are_tried_until_one_stands(pictures):
    judge = PairJudge(SETTINGS, Reader(pictures))
    assert judge.judge(1, 2, ("none", "mirror")).turn == "none"
    mirrored = judge.judge(1, 3, ("flip", "none", "mirror", "rotate90"))
    assert (mirrored.stands, mirrored.was_read, mirrored.turn, mirrored.reason) == (True, True, "mirror", "")
    assert judge.judge(1, 3, ("none",)).stands is False


def test_what_stands_in_no_turn_has_the_least_distance(pictures):
    outcome = PairJudge(SETTINGS, Reader(pictures)).judge(1, 4, tuple(VARIANTS))
    b = Picture(pictures[4])
    distances = {turn: compare(Picture(turned(Picture(pictures[1]).pixels, turn)), b).distance for turn in VARIANTS}
    assert not outcome.stands
    assert outcome.reason
    assert outcome.distance == min(distances.values())
    assert outcome.turn == min(distances, key=distances.get)


def test_a_picture_is_read_once(pictures):
    read = Reader(pictures)
    judge = PairJudge(SETTINGS, read)
    for other in (2, 3, 4):
        judge.judge(1, other, ("none", "mirror"))
        judge.judge(1, other, ("none", "mirror"))
    assert read.asked == [1, 2, 3, 4]


def test_pictures_in_memory_are_judged_like_samples(pictures):
    samples, memory = PairJudge(SETTINGS, Reader(pictures)), PairJudge(SETTINGS)
    first, others = InMemory(pictures[1]), {number: InMemory(pictures[number]) for number in (2, 3, 4)}
    for number, other in others.items():
        expected = samples.judge(1, number, ("none", "mirror"))
        found = memory.judge(first, other, ("none", "mirror"))
        assert (found.stands, found.turn, found.reason) == (expected.stands, expected.turn, expected.reason)
        # a picture in memory is turned before it is reduced: some pixels round otherwise
        assert found.distance == pytest.approx(expected.distance, abs=0.01)
    mixed = PairJudge(SETTINGS, Reader(pictures)).judge(first, 2, ("none",))
    assert mixed == samples.judge(1, 2, ("none",))
    with pytest.raises(ValueError, match="asked about sample 1"):
        memory.judge(1, first, ("none",))


@pytest.mark.parametrize(("settings", "stands", "reason"), [(SETTINGS, False, "unreadable"), (KEEPS, True, "")])
def test_what_can_not_be_read(pictures, settings, stands, reason):
    read = Reader(pictures)
    judge = PairJudge(settings, read)
    for first, second in ((1, 9), (9, 1)):
        outcome = judge.judge(first, second, ("mirror", "none"))
        assert (outcome.stands, outcome.was_read, outcome.is_copy, outcome.reason) == (stands, False, None, reason)
        assert outcome.turn == "mirror"
        assert outcome.distance is None
    assert judge.unreadable == {9: "no picture of 9"}
    assert read.asked.count(9) == 1


def test_verdicts_of_the_base_are_not_asked_again(pictures):
    row = {"src": 1, "dst": 4, "question": "whole", "stands": True, "variant": "mirror", "distance": 0.125, "reason": ""}
    read = Reader(pictures)
    judge = PairJudge(SETTINGS, read, pa.Table.from_pylist([row], schema=VERDICTS))
    remembered = judge.judge(1, 4, ("none", "mirror"), "whole")
    assert (remembered.stands, remembered.turn, remembered.distance) == (True, "mirror", 0.125)
    assert judge.judge(1, 4, ("mirror",), "again").stands  # the first turn to be tried stood
    assert read.asked == []
    assert not judge.judge(1, 4, ("none", "mirror"), "again").stands
    assert read.asked == [1, 4]


def test_turns_of_views():
    assert turns_of("none") == turns_of("inner") == turns_of("crop") == ("none",)
    assert turns_of("mirror") == turns_of("inner mirror") == ("mirror",)
    assert turns_of("rotated") == ("none", "rotate90", "rotate270", "rotate180")
    assert turns_to_try("none", None) == ("none",)
    assert turns_to_try("none", "flip") == ("none", "flip")
    assert turns_to_try("mirror", "flip") == ("mirror",)
    assert turns_to_try("rotated", "flip") == turns_of("rotated")


def described(*pictures):
    grids = np.stack([ycbcr_grid(pixels, (0.0, 0.0, float(pixels.shape[1]), float(pixels.shape[0]))) for pixels in pictures])
    return DctEncoder().encode(grids).astype(np.float16)


def test_likely_turns(pictures):
    a = described(pictures[1], pictures[1], pictures[1])
    symmetric = np.concatenate([pictures[4], pictures[4][:, ::-1]], axis=1)
    b = described(pictures[3], turned(pictures[1], "rotate90"), pictures[2])
    assert likely_turns(a, b, turns())[0] == "mirror"
    assert likely_turns(a, b, turns())[1] in ("rotate90", "rotate270")
    assert likely_turns(a, b, ()) == [None, None, None]
    nearly = described(symmetric)
    assert likely_turns(nearly, nearly, turns()) == ["mirror"]
    assert likelier_first(a[:1], b[:1], turns()) == ("mirror", "none")
    assert likelier_first(a[:1], a[:1], turns()) == ("none",)
