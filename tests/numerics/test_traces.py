"""What was done to each of two copies is seen by comparing them."""

import numpy as np
import pytest
from lookalike_pages import page
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from dedup.demo.pictures import photo_scenes
from dedup.numerics.image.enlarged import detail_ratio, least_ratio
from dedup.numerics.judge.compare import compare
from dedup.numerics.judge.match import DRAWN
from dedup.numerics.judge.picture import Picture
from dedup.numerics.judge.traces import as_list, find_traces


@pytest.fixture(scope="module")
def photos():
    """Photographs, 480 pixels at most."""
    found = [Image.fromarray(scene.pixels) for scene in photo_scenes()[:12]]
    for photo in found:
        photo.thumbnail((480, 480))
    assert len(found) >= 5
    return found


def traces_of(edited, photo):
    """Traces of an edited picture, and of the photo itself, None if the judge does not call them copies; the map between them is its own."""
    first, second = (Picture(np.asarray(picture.convert("RGB"))) for picture in (edited, photo))
    verdict = compare(first, second)
    if not verdict.is_copy:
        return None
    matrix = verdict.matrix if verdict.fine_matrix is None else verdict.fine_matrix
    return find_traces(first, second, matrix, is_drawn=verdict.drawn is not None and verdict.drawn > DRAWN)


def pairs(found):
    """Traces of the pairs that are copies: nearly all."""
    found = list(found)
    copies = [one for one in found if one is not None]
    assert len(copies) >= 0.6 * len(found)
    return copies


def framed(photo, depth, ground):
    page = Image.new("RGB", (photo.width + 2 * depth, photo.height + 2 * depth), ground)
    page.paste(photo, (depth, depth))
    return page


@pytest.mark.parametrize("ground", ["white", "black", "#b03020"])
def test_a_frame_is_seen_on_the_one_that_has_it(photos, ground):
    found = pairs(traces_of(framed(photo, 30, ground), photo) for photo in photos)
    assert sum(edited.framed > 0.1 and plain.framed == 0.0 for edited, plain in found) >= len(found) - 1


def test_a_blurred_ground_is_a_frame(photos):
    found = []
    for photo in photos:
        width = int(1.5 * photo.width)
        page = photo.resize((width, photo.height)).filter(ImageFilter.GaussianBlur(18))
        page.paste(photo, ((width - photo.width) // 2, 0))
        found.append(traces_of(page, photo))
    found = pairs(found)
    assert sum(0.2 < edited.framed < 0.45 for edited, _ in found) >= len(found) - 1


def test_a_cut_photo_shows_less_and_the_whole_has_no_frame(photos):
    found = []
    for photo in photos:
        box = (int(0.1 * photo.width), int(0.05 * photo.height), int(0.95 * photo.width), int(0.9 * photo.height))
        found.append(traces_of(photo.crop(box), photo))
    found = pairs(found)
    good = [cut.shown == pytest.approx(0.72, abs=0.02) and whole.shown > 0.999 and whole.framed == 0.0 for cut, whole in found]
    assert sum(good) >= len(good) - 1


def test_words_lie_on_the_one_that_has_them(photos):
    found = []
    for photo in photos:
        marked = photo.copy()
        ImageDraw.Draw(marked).text((20, photo.height // 2), "SALE 50% OFF", fill="white", stroke_fill="black", stroke_width=2, font=ImageFont.load_default(size=40))  # fmt: skip
        found.append(traces_of(marked, photo))
    found = pairs(found)
    assert sum(marked.overlaid > 0.004 for marked, _ in found) >= len(found) - 1
    assert sum(plain.overlaid == 0.0 for _, plain in found) >= len(found) - 1


def test_grey_has_no_colour_and_brightness_loses_tones(photos):
    colourful = [photo for photo in photos if np.asarray(photo).std(axis=2).mean() > 8]
    assert len(colourful) >= 3
    found = pairs(traces_of(photo.convert("L"), photo) for photo in colourful)
    assert all(grey.colour < 0.25 and plain.colour == 1.0 for grey, plain in found)
    brighter = [Image.fromarray(np.clip(np.asarray(photo).astype(float) * 1.4, 0, 255).astype(np.uint8)) for photo in photos]
    found = pairs(traces_of(bright, photo) for bright, photo in zip(brighter, photos, strict=True))
    assert sum(bright.clipped > plain.clipped or bright.levels < plain.levels for bright, plain in found) >= len(found) - 1


def test_a_page_in_another_size_has_lost_nothing_but_pixels():
    for seed in range(4):
        whole = page(seed, (960, 720))
        for smaller in (whole.resize((480, 360)), whole.resize((300, 225)).resize((960, 720)), whole.resize((640, 480)).convert("L")):
            found = traces_of(smaller, whole)
            assert found is not None
            for one in found:
                assert (one.overlaid, one.clipped, one.levels, one.framed) == (0.0, 0.0, 0.0, 0.0)


def test_what_one_sees_through_does_not_lie_on_the_plain_one():
    rng = np.random.default_rng(5)
    for number in range(4):
        cells = np.kron(rng.integers(0, 2, (24, 36)), np.ones((12, 12))) * 215 + 20  # nothing fits what is around it
        plain = Image.fromarray(cells.astype(np.uint8)).convert("RGB")
        layer = Image.new("RGBA", plain.size, (0, 0, 0, 0))
        font = ImageFont.load_default(size=70)
        ImageDraw.Draw(layer).text((30, 40 + 40 * number), "SAMPLE", fill=(255, 255, 255, 140), stroke_width=3, font=font)
        marked = Image.alpha_composite(plain.convert("RGBA"), layer)
        first, second = (Picture(np.asarray(picture.convert("RGB"))) for picture in (marked, plain))
        over, under = find_traces(first, second, np.eye(2, 3), is_drawn=True)
        assert under.overlaid <= over.overlaid  # which of them it lies on may not be seen


def test_equal_pictures_have_no_traces(photos):
    for first, second in pairs(traces_of(photo, photo) for photo in photos):
        assert (first.framed, first.overlaid, first.colour) == (0.0, 0.0, 1.0) and first.shown == pytest.approx(1.0)
        assert as_list((first, second)) == as_list((second, first)) and len(as_list((first, second))) == 22


def test_enlarged_photos_lack_the_finest_detail(photos):
    for photo in photos[:4]:
        small = photo.resize((photo.width // 2, photo.height // 2), Image.Resampling.LANCZOS)
        enlarged = small.resize(photo.size, Image.Resampling.BICUBIC)
        assert detail_ratio(np.asarray(enlarged), 0.5) < least_ratio(2.0) < detail_ratio(np.asarray(photo), 0.5)


def test_what_cannot_tell_says_nothing():
    assert detail_ratio(np.zeros((300, 300, 3), np.uint8), 0.5) is None
    assert detail_ratio(np.zeros((20, 300, 3), np.uint8), 0.5) is None
