"""What a pair is: copy, part, template, scene, or neither; and the mask of where two agree."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from dedup.config.keys import KEYS
from dedup.demo.pictures import photo_scenes
from dedup.numerics.judge.compare import compare
from dedup.numerics.judge.content import CELL, Content
from dedup.numerics.judge.picture import Picture
from dedup.numerics.judge.relation import AGREES, DIFFERS, MASK_SIDE, NEITHER, RELATIONS, agreement_mask, cells_of

pytestmark = pytest.mark.usefixtures("every_numeric_error_raises")


@pytest.fixture(scope="module")
def photo():
    return next(iter(photo_scenes())).pixels[:480, :480]


def form(word, size=(480, 620)):
    picture = Image.new("RGB", size, (255, 255, 255))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(20)
    for line in range(13):
        draw.text((30, 40 + 42 * line), f"Field number {line + 1}:", fill=(20, 20, 40), font=font)
    draw.text((230, 40 + 42 * 6), word, fill=(20, 20, 40), font=font)
    draw.rectangle([0, 0, size[0], 24], fill=(40, 90, 160))
    return np.asarray(picture)


def jpeg(pixels, quality):
    return cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def judged(a, b):
    return compare(Picture(a), Picture(b))


def test_the_configuration_knows_all_relations():
    assert KEYS["confirm.drop"].choices == tuple(RELATIONS)
    assert set(KEYS["confirm.drop"].default) == {"copy", "part"}


def test_copies_are_copies(photo):
    for copy in (photo, jpeg(photo, 30), photo[24:-24, 24:-24], cv2.resize(photo, (240, 240), interpolation=cv2.INTER_AREA)):
        verdict = judged(photo, copy)
        assert (verdict.relation, verdict.inside) == ("copy", "")
        assert verdict.agreeing_share > 0.9
        assert verdict.mask is None


def test_a_part_lies_inside_its_whole(photo):
    part = photo[60:360, 90:390]
    assert (judged(photo, part).relation, judged(photo, part).inside) == ("part", "second")
    assert (judged(part, photo).relation, judged(part, photo).inside) == ("part", "first")
    # the coarser picture is the frame in which the two are compared, whichever that is
    small = cv2.resize(part, (150, 150), interpolation=cv2.INTER_AREA)
    assert judged(photo, small).inside == "second"
    assert judged(small, photo).inside == "first"


def test_a_form_filled_in_twice_is_a_template_that_differs_where_the_words_are():
    verdict = judged(form("Amelia Fox"), jpeg(form("Robert Ibarra"), 70))
    assert verdict.relation == "template"
    assert verdict.agreeing_share > 0.8
    rows, columns = np.nonzero(verdict.mask == DIFFERS)
    assert np.abs((rows + 0.5) / MASK_SIDE - (50 + 42 * 6) / 620).max() < 0.05
    assert (columns + 0.5).min() / MASK_SIDE > 0.42
    rows, _ = np.nonzero(verdict.mask == AGREES)
    assert len(np.unique(rows)) > 20


def test_the_mask_lies_across_the_second_picture():
    whole, cropped = form("Amelia Fox"), form("Robert Ibarra")[150:550, 20:460]
    for a, b, middle in ((whole, cropped, (292 - 150) / 400), (cropped, whole, 302 / 620)):
        verdict = judged(a, b)
        assert verdict.relation == "template"
        rows, _ = np.nonzero(verdict.mask == DIFFERS)
        assert abs(float(np.median(rows) + 0.5) / MASK_SIDE - middle) < 0.06


def test_another_thing_on_a_photo_is_a_scene(photo):
    rng = np.random.default_rng(3)
    other = list(photo_scenes())[4].pixels

    def shot(thing, light):
        picture = photo.copy()
        picture[150:330, 150:330] = thing
        noisy = picture * light + rng.normal(0, 6, picture.shape)
        return np.clip(noisy, 0, 255).astype(np.uint8)

    verdict = judged(shot(other[:180, :180], 1.0), shot(cv2.flip(other[100:280, 200:380], 1), 0.9))
    assert verdict.relation == "scene"
    assert 0.3 < verdict.agreeing_share < 0.98


def test_other_photos_are_different(photo):
    verdict = judged(photo, list(photo_scenes())[4].pixels)
    assert verdict.relation == "different"
    assert verdict.mask is None


def test_masks_follow_the_map():
    rng = np.random.default_rng(0)
    has_detail = rng.random((40, 50)) < 0.8
    differs = has_detail & (rng.random((40, 50)) < 0.4)
    content = Content(has_detail, differs, 0, 1.5, 0.0, 0.0)
    # the frame is compared from pixel (12, 8) on, and lies at (5, 3) of a picture of 230 x 190 pixels, shrunk to nine tenths
    size, origin = (230, 190), (12, 8)
    matrix = np.array([[0.9, 0.0, 5.0], [0.0, 0.9, 3.0]])
    mask = agreement_mask(content, cells_of(matrix, size, origin))
    for row in range(MASK_SIDE):
        for column in range(MASK_SIDE):
            x, y = (column + 0.5) / MASK_SIDE * size[0], (row + 0.5) / MASK_SIDE * size[1]
            cell_x, cell_y = ((x - 5.0) / 0.9 - origin[0]) / CELL, ((y - 3.0) / 0.9 - origin[1]) / CELL
            if min(abs(cell_x - round(cell_x)), abs(cell_y - round(cell_y))) < 0.05:
                continue  # between two cells: rounding decides
            i, j = int(np.floor(cell_y)), int(np.floor(cell_x))
            is_inside = 0 <= i < 40 and 0 <= j < 50
            expected = NEITHER if not is_inside or not has_detail[i, j] else DIFFERS if differs[i, j] else AGREES
            assert mask[row, column] == expected, (row, column)
