"""What pairs say of copies, put together."""

import numpy as np
import pytest

from dedup.numerics.graph.originality import Member, PairOfCopies, mark_enlarged, put_together

TONES = (0.0, 6.0, 100.0, 40.0, 2.0, -3.0)  # clipped, levels, brightness, spread, blue, red
CLEAN = (1.0, 0.0, 0.0, 0.0, 1.0, *TONES)  # shown, framed, surrounded, overlaid, colour
SAME = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # map of relative coordinates


def pair(first, second, of_first=CLEAN, of_second=CLEAN, variant="none", transform=SAME):
    return PairOfCopies(first, second, variant, transform, [*of_first, *of_second])


def put(n, pairs, sizes=None, groups=None):
    members = [Member(*(sizes[place] if sizes else (400, 300))) for place in range(n)]
    put_together(members, pairs, groups or [0] * n)
    return members


FRAMED = (1.0, 0.2, 0.0, 0.0, 1.0, *TONES)
MARKED = (1.0, 0.0, 0.0, 0.03, 1.0, *TONES)
CUT = (0.64, 0.0, 0.0, 0.0, 1.0, *TONES)
GREY = (1.0, 0.0, 0.0, 0.0, 0.02, *TONES)


@pytest.mark.parametrize(("traces", "name"), [(FRAMED, "framed"), (MARKED, "overlaid"), (CUT, "cropped"), (GREY, "decoloured")])
@pytest.mark.parametrize("is_first", [False, True])
def test_of_two_the_edited_one_loses(traces, name, is_first):
    edited, original = (0, 1) if is_first else (1, 0)
    one = pair(0, 1, traces, CLEAN) if is_first else pair(0, 1, CLEAN, traces)
    members = put(2, [one])
    assert members[edited].edits() == [name] and members[original].edits() == []
    assert members[edited].originality < members[original].originality == 1.0


def test_the_one_with_most_pairs_need_not_be_the_original():
    """All are compared with a framed copy: it is known as framed, and so is the other one with its frame."""
    others = [CLEAN, CLEAN, MARKED, CLEAN]
    pairs = [pair(0, 1 + k, (1.0, 0.2, 0.0, 0.0, 1.0, *TONES), traces) for k, traces in enumerate(others)] + [pair(0, 5, CLEAN, CLEAN)]
    members = put(6, pairs)
    assert [member.edits() for member in members] == [["framed"], [], [], ["overlaid"], [], ["framed"]]


def test_one_pair_that_is_wrong_makes_nobody_else_look_bad():
    pairs = [pair(0, k) for k in range(1, 6)] + [pair(0, 6, MARKED, CLEAN)]
    members = put(7, pairs)
    assert [member.originality for member in members] == [1.0] * 7


def test_of_many_those_with_the_tones_of_most_have_lost_none():
    """Contrast that was added looks as if the others had lost it."""
    contrasty, warm = (*CLEAN[:5], 0.0, 6.5, 100.0, 55.0, 2.0, -3.0), (*CLEAN[:5], 0.0, 6.0, 100.0, 40.0, -4.0, 6.0)
    members = put(6, [pair(0, 1, contrasty, CLEAN), pair(1, 2), pair(0, 3, contrasty, CLEAN), pair(3, 4, CLEAN, warm), pair(3, 5)])
    assert [member.edits() for member in members] == [["toned"], [], [], [], ["tinted"], []]
    assert members[0].originality < 1.0 and members[4].originality < 1.0
    # of two nobody is most: the one with more tones has lost nothing, and colours tell nothing
    assert [member.edits() for member in put(2, [pair(0, 1, contrasty, CLEAN)])] == [[], ["toned"]]
    assert [member.edits() for member in put(2, [pair(0, 1, warm, CLEAN)])] == [[], []]


def test_a_copy_of_another_aspect_ratio_than_most_was_stretched():
    """However it is turned: 400 x 300 drawn out to 500 x 300, upright and lying."""
    sizes = [(400, 300)] * 4 + [(500, 300), (300, 500), (300, 400)]
    pairs = [pair(0, k) for k in range(1, 5)] + [pair(4, 5, variant="rotate90"), pair(6, 1, variant="rotate270")]
    members = put(7, pairs, sizes=sizes)
    assert [member.edits() for member in members[:5]] == [[]] * 4 + [["stretched"]]
    assert "stretched" in members[5].edits() and members[6].edits() == ["turned"]
    assert put(2, [pair(0, 1)], sizes=[(400, 300), (500, 300)])[1].edits() == []  # of two nobody is most


def test_what_most_have_around_the_picture_was_cut_off_the_one_without():
    """But a plain border may have been added to most."""
    for around, edits in (((1.0, 0.0, 0.36, 0.0, 1.0, *TONES), ["cropped"]), ((1.0, 0.36, 0.0, 0.0, 1.0, *TONES), [])):
        members = put(6, [pair(0, k, CLEAN, around) for k in range(1, 6)])
        assert members[0].edits() == edits
        assert all((member.originality > members[0].originality) == (edits != []) for member in members[1:])


def test_a_copy_of_nearly_the_size_of_most_was_made_of_them():
    sizes = [(400, 300)] * 5 + [(412, 309)]
    members = put(6, [pair(0, k) for k in range(1, 6)], sizes=sizes)
    assert [member.originality == 1.0 for member in members] == [True] * 5 + [False]


def test_edits_add_up_along_pairs():
    members = put(4, [pair(0, 1), pair(0, 2, CLEAN, FRAMED), pair(2, 3, CLEAN, MARKED)])
    assert [member.edits() for member in members] == [[], [], ["framed"], ["framed", "overlaid"]]


def test_a_turned_copy_is_told_where_most_are_not():
    pairs = [pair(0, 1), pair(0, 2, variant="mirror"), pair(3, 0, variant="rotate90"), pair(4, 1)]
    members = put(5, pairs, sizes=[(400, 300)] * 3 + [(300, 400), (400, 300)])
    assert [member.turn for member in members] == ["none", "none", "mirror", "rotate270", "none"]
    assert [member.edits() for member in members][2:4] == [["mirrored"], ["turned"]]
    assert [member.turn for member in put(2, [pair(0, 1, variant="mirror")])] == ["none", "none"]  # nobody is most


def test_pixels_count_where_both_show_the_same():
    half = (0.5, 0.0, 0.25, 0.0, 0.5, 0.25)  # the first is the middle of the second
    members = put(2, [pair(0, 1, (0.25, 0.0, 0.0, 0.0, 1.0, *TONES), CLEAN, transform=half)], sizes=[(400, 300), (400, 300)])
    assert members[1].figures()["resolution"] == pytest.approx(0.5)
    assert members[0].edits() == ["cropped"] and members[1].edits() == ["reduced"]


def test_pixels_without_detail_do_not_count():
    members = put(3, [pair(0, 1), pair(0, 2)], sizes=[(400, 300), (800, 600), (200, 150)])
    assert [member.edits() for member in members] == [["reduced"], [], ["reduced"]]
    mark_enlarged(members, 1, 2.0)
    assert [member.edits() for member in members] == [[], ["enlarged"], ["reduced"]]
    assert members[0].originality == 1.0 > members[1].originality > members[2].originality


def test_groups_of_one_component_are_told_apart():
    """A pair between groups connects them; each group has its own best."""
    members = put(4, [pair(0, 1), pair(1, 2, CLEAN, FRAMED), pair(2, 3)], sizes=[(400, 300)] * 2 + [(800, 600)] * 2, groups=[0, 0, 2, 2])
    assert members[0].edits() == [] and members[0].figures()["resolution"] == 1.0
    assert members[2].figures()["resolution"] == 1.0


def test_who_was_not_compared_has_no_originality():
    members = put(3, [pair(0, 1)])
    assert members[2].originality is None and np.isnan(members[2].loss) and set(members[2].figures().values()) == {None}
    members = put(1, [])
    assert members[0].originality is None
