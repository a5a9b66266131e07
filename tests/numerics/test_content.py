"""What two registered pictures show, part by part: drawn look-alikes differ in a part, their own copies do not."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from dedup.demo.pictures import photo_scenes
from dedup.numerics.judge.bars import bar_mask
from dedup.numerics.judge.compare import compare
from dedup.numerics.judge.content import compare_content
from dedup.numerics.judge.match import fitted_line, match
from dedup.numerics.judge.overlays import box_share, ink_shares
from dedup.numerics.judge.picture import FINE_SIDE, Level, Picture
from dedup.numerics.judge.recolour import recoloured_share
from dedup.numerics.judge.tiles import overlap

pytestmark = pytest.mark.usefixtures("every_numeric_error_raises")

_TURNS = {"bottom": 0, "top": 2, "left": 1, "right": 3}
SAME = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def page(seed, *, words_of=None, ground=(255, 255, 255), ink=(20, 20, 40)):
    """A form: the same lines and labels each time, other words; `words_of` gives the words of another seed but for one line."""
    picture = Image.new("RGB", (480, 620), ground)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    draw.rectangle([0, 0, 480, 60], fill=(40, 90, 160))
    draw.text((20, 20), "ORDER FORM", fill=(255, 255, 255), font=ImageFont.load_default(24))
    for line in range(12):
        rng = np.random.default_rng([seed if words_of is None or line == 7 else words_of, line])
        top = 90 + 42 * line
        draw.text((20, top), f"Field {line + 1}", fill=ink, font=font)
        draw.line([120, top + 22, 460, top + 22], fill=ink)
        word = "".join(rng.choice(list("abcdefghiklmnoprstuvw"), 22))
        draw.text((130, top), word, fill=ink, font=font)
    return np.asarray(picture)


def jpeg(pixels, quality):
    return cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def resized(pixels, share):
    size = (round(pixels.shape[1] * share), round(pixels.shape[0] * share))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def verdict(a, b):
    return compare(Picture(a), Picture(b))


def laid(a, b):
    """Two pictures of one size, at the size at which their parts are compared."""
    return overlap(Level(cv2.resize(a, (FINE_SIDE, FINE_SIDE))), Level(cv2.resize(b, (FINE_SIDE, FINE_SIDE))), SAME)


@pytest.mark.parametrize("share", [1.0, 0.75, 0.5])
@pytest.mark.parametrize("quality", [90, 40])
def test_a_form_filled_in_twice_is_two_pictures(share, quality):
    pages = [resized(jpeg(page(seed), quality), share) for seed in range(5)]
    for k, a in enumerate(pages):
        for b in pages[k + 1 :]:
            assert verdict(a, b).reason in ("content", "different", "moved")


@pytest.mark.parametrize("quality", [90, 40])
def test_one_other_line_is_enough(quality):
    found = verdict(jpeg(page(0), 90), jpeg(page(1, words_of=0), quality))
    assert found.reason == "content"


@pytest.mark.parametrize(
    "change",
    [
        lambda page: jpeg(page, 25),
        lambda page: resized(page, 0.5),
        lambda page: jpeg(resized(page, 0.6), 60),
        lambda page: cv2.cvtColor(cv2.cvtColor(page, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
        lambda page: page[16:-8, 12:-8],
        lambda page: (page * 0.85 + 20).astype(np.uint8),
    ],
    ids=["jpeg", "half", "small_jpeg", "grey", "cropped", "brighter"],
)
def test_copies_of_a_form_stand(change):
    for seed in range(3):
        assert verdict(page(seed), change(page(seed))).is_copy


def test_one_drawing_in_other_colours_is_another_picture():
    def heart(colour):
        picture = Image.new("RGB", (200, 200), (255, 255, 255))
        draw = ImageDraw.Draw(picture)
        draw.ellipse([30, 40, 105, 115], fill=colour)
        draw.ellipse([95, 40, 170, 115], fill=colour)
        draw.polygon([(36, 95), (164, 95), (100, 175)], fill=colour)
        draw.line([100, 60, 100, 150], fill=(0, 0, 0), width=4)
        return np.asarray(picture)

    red, green, dark = heart((220, 30, 40)), heart((40, 160, 60)), heart((150, 20, 30))
    for other in (green, dark):
        assert recoloured_share(laid(red, other)) > 0.1
        assert verdict(red, other).reason
    assert recoloured_share(laid(red, jpeg(red, 50))) < 0.005
    assert verdict(red, jpeg(red, 50)).is_copy


def test_writing_over_a_photo_is_explained_and_two_writings_are_not():
    photo = list(photo_scenes())[1].pixels
    photo = cv2.resize(photo, (FINE_SIDE, FINE_SIDE), interpolation=cv2.INTER_AREA)

    def captioned(text):
        picture = Image.fromarray(photo)
        ImageDraw.Draw(picture).text(
            (20, 180), text, fill=(255, 255, 255), font=ImageFont.load_default(34), stroke_width=2, stroke_fill=(0, 0, 0)
        )
        return np.asarray(picture)

    one, other = captioned("WHEN YOU SEE IT"), captioned("NOT TODAY, JO")
    plain, twice = compare_content(laid(photo, one)), compare_content(laid(one, other))
    assert plain.differs.sum() > 40
    assert plain.n_unexplained == 0
    assert plain.is_same
    assert twice.n_unexplained > 40
    assert not twice.is_same


def test_ink_on_one_side_explains_what_changed():
    rng = np.random.default_rng(0)
    beneath = cv2.GaussianBlur(rng.uniform(0, 255, (60, 60, 3)).astype(np.float32), (0, 0), 3) * 3 - 255
    strokes = np.zeros((60, 60), dtype=bool)
    strokes[10:50:8] = strokes[11:50:8] = True
    inked = np.where(strokes[:, :, None], np.float32([250.0, 0.0, 0.0]), beneath).astype(np.float32)
    whole = np.ones((60, 60), dtype=bool)
    on_first, on_second = ink_shares(beneath, inked, whole, strokes)
    assert on_second > 0.95
    assert on_first < 0.6
    assert ink_shares(inked, beneath, whole, strokes) == (on_second, on_first)
    others = np.roll(strokes, 4, axis=0)
    also = np.where(others[:, :, None], np.float32([250.0, 0.0, 0.0]), beneath).astype(np.float32)
    assert max(ink_shares(inked, also, whole, strokes | others)) < 0.6
    assert ink_shares(beneath, inked, whole, np.zeros_like(strokes)) == (0.0, 0.0)


def test_a_box_has_edges_that_only_one_picture_has():
    rng = np.random.default_rng(1)
    ground = cv2.GaussianBlur(rng.uniform(0, 255, (120, 120, 3)).astype(np.float32), (0, 0), 4)
    with_box = ground.copy()
    with_box[40:90, 30:100] = 240.0
    region = np.zeros((120, 120), dtype=bool)
    region[36:94, 28:104] = True
    assert box_share(ground, with_box, region) > 0.9
    assert box_share(with_box, with_box, region) == 0.0
    assert box_share(ground, ground, region) == 0.0


def test_lines_are_fitted_to_what_most_pixels_do():
    rng = np.random.default_rng(2)
    x = rng.uniform(0, 255, 3_000)
    y = 0.7 * x + 30 + rng.normal(0, 2, len(x))
    y[:600] = 250.0  # painted over
    gain, offset = fitted_line(x, y)
    assert gain == pytest.approx(0.7, abs=0.03)
    assert offset == pytest.approx(30, abs=4)


@pytest.mark.parametrize("deviation", [0.0, 1.0, 2.0])
def test_the_sharper_picture_is_blurred_as_the_other_is(deviation):
    photo = cv2.resize(next(scene.pixels for scene in photo_scenes()), (FINE_SIDE, FINE_SIDE), interpolation=cv2.INTER_AREA)
    dull = cv2.GaussianBlur(photo, (0, 0), deviation) if deviation else photo
    for a, b in ((photo, dull), (dull, photo)):
        matched = match(laid(a, b))
        assert np.abs(matched.left - matched.right).mean() < 3.0
        assert matched.noise < 2.0


@pytest.mark.parametrize("shape", [(12, 256), (256, 12), (13, 13), (40, 200)])
@pytest.mark.parametrize("value", [None, 0, 255])
def test_little_pictures_and_flat_ones_are_compared(shape, value):
    rng = np.random.default_rng(3)
    a = rng.integers(0, 256, (*shape, 3), dtype=np.uint8) if value is None else np.full((*shape, 3), value, np.uint8)
    shared = overlap(Level(a), Level(a), SAME)
    if shared is not None:
        content = compare_content(shared)
        assert content.is_same
        assert content.agreeing_share == 1.0
    other = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    shared = overlap(Level(a), Level(other), SAME)
    if shared is not None:
        assert 0.0 <= compare_content(shared, checks_colours=True).agreeing_share <= 1.0


def barred(photo, text, *, ground=(0, 0, 0), ink=(255, 255, 255), side="bottom"):
    """A photo with a caption bar over a part of it."""
    picture = Image.fromarray(np.rot90(photo, _TURNS[side]))
    draw, (width, height) = ImageDraw.Draw(picture), picture.size
    draw.rectangle([0, height - 44, width, height], fill=ground)
    draw.text((20, height - 38), text, fill=ink, font=ImageFont.load_default(26))
    return np.rot90(np.asarray(picture), -_TURNS[side])


@pytest.mark.parametrize("side", ["bottom", "top", "left", "right"])
@pytest.mark.parametrize("colours", [((0, 0, 0), (255, 255, 255)), ((255, 255, 255), (0, 0, 0)), ((30, 60, 160), (250, 240, 60))])
def test_a_caption_bar_is_found_whatever_lies_beneath(side, colours):
    photo = next(iter(photo_scenes())).pixels[:400, :400]
    one = barred(photo, "photo of the day", ground=colours[0], ink=colours[1], side=side)
    other = barred(photo, "wait for it", ground=colours[0], ink=colours[1], side=side)
    depth = 44 * FINE_SIDE // 400
    shared = laid(photo, one)
    found = bar_mask(shared.left, shared.right, shared.mask > 0)
    beside = np.rot90(found, _TURNS[side])
    assert beside[-depth + 1 : -1, 1:-1].all()
    assert not beside[: -depth - 2].any()
    for a, b in ((photo, one), (one, photo), (one, other), (jpeg(one, 30), other)):
        assert verdict(a, b).is_copy


def test_a_dark_foreground_is_no_bar():
    photo = next(iter(photo_scenes())).pixels[:400, :400].copy()
    hills = 300 + (20 * np.sin(np.arange(400) / 25)).astype(int)
    for column, top in enumerate(hills):
        photo[top:, column] = 4
    changed = photo.copy()
    cv2.circle(changed, (200, 360), 25, (250, 240, 200), -1)
    shared = laid(photo, changed)
    assert not bar_mask(shared.left, shared.right, shared.mask > 0).any()
    assert compare_content(shared).differs.sum() > 10


def test_a_drawing_may_have_a_watermark_that_one_can_see_through():
    drawing = Image.new("RGB", (512, 512), (50, 90, 70))
    draw = ImageDraw.Draw(drawing)
    for k in range(12):
        draw.rectangle([40 * k, 0, 40 * k + 19, 512], fill=(240, 140, 40))
    drawing = np.asarray(drawing)

    def marked(alpha):
        layer = Image.new("L", (512, 512))
        for k in range(9):
            ImageDraw.Draw(layer).text((10 + 12 * k, 10 + 56 * k), "SAMPLE PICTURE SAMPLE", fill=255, font=ImageFont.load_default(36))
        opacity = np.asarray(layer)[:, :, None] / 255 * alpha
        return (drawing * (1 - opacity) + 255 * opacity).astype(np.uint8)

    assert compare_content(laid(drawing, marked(0.4))).is_same
    assert not compare_content(laid(drawing, marked(1.0))).is_same
