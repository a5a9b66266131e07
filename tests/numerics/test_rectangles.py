"""Pictures inside others, found on the small grid."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from dedup.demo.pictures import photo_scenes
from dedup.numerics.image.descriptor import describe, ycbcr_grid
from dedup.numerics.image.rectangles import MOST, inner_boxes, rectangles, refined
from dedup.numerics.image.views import view_rows

pytestmark = pytest.mark.usefixtures("every_numeric_error_raises")


@pytest.fixture(scope="module")
def photos():
    return [Image.fromarray(scene.pixels[:300, :400]) for scene in photo_scenes()][:6]


def found(picture):
    """Boxes in pixels."""
    pixels = np.asarray(picture)
    return [refined(pixels, share) for share in rectangles(ycbcr_grid(pixels))]


def best_match(boxes, expected):
    """Largest overlap with a box, as a share of what either covers."""

    def common(a, b):
        both = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
        return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)

    return max((common(box, expected) for box in boxes), default=0.0)


@pytest.mark.parametrize("ground", [(255, 255, 255), (18, 18, 18), (240, 242, 245)])
def test_pictures_on_a_page_are_found_to_the_pixel(photos, ground):
    page = Image.new("RGB", (900, 1200), ground)
    draw = ImageDraw.Draw(page)
    for line in range(12):
        draw.text(
            (60, 800 + 30 * line), "words about the picture above, and of others", fill=(120, 120, 130), font=ImageFont.load_default(20)
        )
    page.paste(photos[0].resize((520, 390)), (60, 300))
    page.paste(photos[1].resize((240, 300)), (620, 40))
    boxes = found(page)
    assert best_match(boxes, (60, 300, 580, 690)) > 0.97
    assert best_match(boxes, (620, 40, 860, 340)) > 0.97
    assert len(boxes) <= MOST


@pytest.mark.parametrize(("columns", "rows"), [(2, 1), (1, 2), (2, 2), (3, 1)])
@pytest.mark.parametrize("gap", [0, 12])
def test_collages_are_taken_apart(photos, columns, rows, gap):
    sheet = Image.new("RGB", (columns * (240 + gap) + gap, rows * (240 + gap) + gap), (255, 255, 255))
    places = [(gap + x * (240 + gap), gap + y * (240 + gap)) for x in range(columns) for y in range(rows)]
    for photo, place in zip(photos[1:], places, strict=False):
        sheet.paste(photo.resize((240, 240)), place)
    boxes = found(sheet)
    hits = sum(best_match(boxes, (x, y, x + 240, y + 240)) > 0.9 for x, y in places)
    assert hits >= (len(places) + 1) // 2


def test_a_video_over_its_blurred_self_is_found(photos):
    photo = photos[0].resize((540, 405))
    sheet = photo.resize((1280, 960)).resize((30, 22)).resize((540, 960), Image.Resampling.BICUBIC)
    sheet.paste(photo, (0, 277))
    assert best_match(found(sheet), (0, 277, 540, 682)) > 0.95


def test_photos_hold_few_rectangles():
    counts = [len(rectangles(ycbcr_grid(scene.pixels))) for scene in photo_scenes()]
    assert np.mean(counts) < 1.0


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 4), (64, 64)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_flat_and_tiny_images_hold_none(shape, value):
    pixels = np.full((*shape, 3), value, np.uint8)
    grid = ycbcr_grid(pixels)
    assert rectangles(grid) == []
    assert all(left < right and top < bottom for left, top, right, bottom in inner_boxes(pixels, (0.0, 0.0, *shape[::-1]), grid))


def test_what_lies_inside_a_frame_comes_first_and_once(photos):
    framed = np.full((340, 440, 3), 255, np.uint8)
    framed[20:320, 20:420] = np.asarray(photos[0])
    boxes = inner_boxes(framed, (0.0, 0.0, 440.0, 340.0), ycbcr_grid(framed))
    assert boxes[0] == (20, 20, 420, 320)
    assert len(boxes) == 1 or best_match([boxes[0]], boxes[1]) < 0.94


def test_the_square_in_the_middle_of_a_wide_photo_is_a_view(photos):
    photo = np.asarray(photos[0])  # 400 x 300
    square = photo[:, 50:350]
    whole, middle = (describe(pixels)[0][None] for pixels in (photo, square))
    empty = np.zeros((0, whole.shape[1]), np.float32)
    of_photo = view_rows(whole, empty, np.zeros(0, np.int64), np.array([4 / 3], np.float32))
    of_square = view_rows(middle, empty, np.zeros(0, np.int64), np.ones(1, np.float32))
    best = (of_photo.vectors @ of_square.vectors[of_square.is_base].T).max()
    as_a_square = view_rows(whole, empty, np.zeros(0, np.int64), np.ones(1, np.float32))
    assert best > 0.97
    assert (as_a_square.vectors @ of_square.vectors[of_square.is_base].T).max() < best
