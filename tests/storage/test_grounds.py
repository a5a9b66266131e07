"""Transparency: what is visible stays visible, and copies choose the same ground."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from image_data import decode, detailed, encode
from PIL import Image, ImageDraw, ImageFont

from dedup.storage.images.ground import WHITE, choose_ground

Colour = tuple[int, int, int]


def lettering(
    *words: tuple[str, Colour, int], emblem: bool = False, size: tuple[int, int] = (320, 100), hidden: Colour = (0, 0, 0)
) -> Image.Image:
    """Words in a colour and an alpha, one under the other, on nothing."""
    image = Image.new("RGBA", size, (*hidden, 0))
    if emblem:
        image.paste(detailed(1, (80, 80)), (10, 10))
    for row, (word, colour, alpha) in enumerate(words):
        layer = Image.new("RGBA", size, (*colour, 0))
        ImageDraw.Draw(layer).text(
            (105, 5 + 90 * row // len(words)), word, font=ImageFont.load_default(80 // len(words)), fill=(*colour, alpha)
        )
        image = Image.alpha_composite(image, layer) if row or emblem else layer
    return image


def spread(pixels: npt.NDArray[Any]) -> float:
    return float(pixels.astype(float).std())


@pytest.mark.parametrize("alpha", [255, 110, 50])
@pytest.mark.parametrize("colour", [(255, 255, 255), (250, 250, 245)])
def test_white_on_nothing_shows(colour: Colour, alpha: int) -> None:
    one, other = (lettering((word, colour, alpha)) for word in ("NORTH", "LITWARE"))
    a, b = (decode(encode(image, "PNG")).pixels.astype(int) for image in (one, other))
    assert np.abs(a - b).max() >= 0.8 * alpha
    assert spread(a) > 0.1 * alpha


def test_white_letters_beside_an_emblem_show() -> None:
    a, b = (decode(encode(lettering((word, WHITE, 255), emblem=True), "PNG")).pixels.astype(int) for word in ("NORTH", "LITWARE"))
    assert np.abs(a - b)[:, 100:].max() > 200
    np.testing.assert_array_equal(a[:, :95], b[:, :95])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA"])
def test_every_mode_with_alpha(mode: str) -> None:
    image = lettering(("WHITE", WHITE, 255))
    if mode == "P":  # a palette with a transparent entry
        alpha = np.asarray(image.getchannel("A"))
        indexed = Image.fromarray((alpha > 127).astype(np.uint8), "L").convert("P")
        indexed.putpalette([9, 9, 9, 255, 255, 255])
        for kind in ("PNG", "GIF"):
            pixels = decode(encode(indexed, kind, transparency=0)).pixels
            assert (pixels[alpha > 127] == 255).all()
            assert (pixels[alpha <= 127] == 0).all()
        return
    data = encode(image.convert(mode), "PNG" if mode != "PA" else "TIFF") if mode != "PA" else encode(image.convert("LA"), "TIFF")
    assert spread(decode(data).pixels) > 50


def test_all_that_is_invisible_is_white() -> None:
    for colour in ((0, 0, 0), (255, 255, 255), (9, 200, 3)):
        assert (decode(encode(Image.new("RGBA", (40, 30), (*colour, 0)), "PNG")).pixels == 255).all()


@pytest.mark.parametrize("hidden", [(255, 0, 0), (255, 255, 255), (0, 0, 0)])
def test_colours_that_nobody_sees_change_nothing(hidden: Colour) -> None:
    image = lettering(("NORTH", WHITE, 255), ("and more", (255, 240, 230), 120), emblem=True)
    values = np.array(image)
    values[values[:, :, 3] == 0, :3] = hidden
    for options in ({}, {"min_side": 40}):
        expected = decode(encode(image, "PNG"), **options).pixels
        np.testing.assert_array_equal(decode(encode(values, "PNG"), **options).pixels, expected)


def drawings() -> dict[str, Image.Image]:
    """Pictures that show on white what there is to see."""
    disc = Image.new("L", (200, 150), 0)
    ImageDraw.Draw(disc).ellipse((20, 5, 180, 145), fill=255)
    cut_out = detailed(2)
    cut_out.putalpha(disc)
    sky = np.array(detailed(3))
    sky[:70] = 255  # its upper half can't be told from white
    photo = Image.fromarray(sky)
    photo.putalpha(disc)
    sticker = Image.new("RGBA", (200, 150), (0, 0, 0, 0))
    ImageDraw.Draw(sticker).ellipse((20, 5, 180, 145), fill=(255, 255, 255, 255))
    ImageDraw.Draw(sticker).ellipse((32, 17, 168, 133), fill=(200, 30, 90, 255))
    framed = Image.new("RGBA", (240, 190), (0, 0, 0, 0))
    product = Image.new("RGB", (200, 150), "white")
    product.paste(detailed(4, (60, 50)), (70, 50))
    framed.paste(product, (20, 20))
    shadow = Image.new("RGBA", (200, 150), (0, 0, 0, 0))
    shadow.putalpha(Image.radial_gradient("L").resize((200, 150)).point(lambda value: max(0, 200 - value) // 2))
    lines = Image.new("RGBA", (400, 300), (0, 0, 0, 0))
    for step in range(10, 390, 25):
        ImageDraw.Draw(lines).line((step, 10, 400 - step, 290), fill=(130, 130, 130, 255))
    return {
        "black letters": lettering(("NORTH", (0, 0, 0), 255)),
        "grey letters": lettering(("NORTH", (215, 215, 215), 255)),
        "coloured letters": lettering(("NORTH", (255, 220, 0), 255), ("LITWARE", (0, 90, 200), 90)),
        "cut-out": cut_out, "cut-out with a white sky": photo, "sticker": sticker, "product on white with a margin": framed,
        "shadow": shadow, "thin grey lines": lines,
    }  # fmt: skip


@pytest.mark.parametrize("name", drawings())
def test_what_shows_on_white_lies_on_white(name: str) -> None:
    image = drawings()[name]
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    np.testing.assert_array_equal(decode(encode(image, "PNG")).pixels, np.asarray(white))
    reduced, expected = decode(encode(image, "PNG"), min_side=30).pixels, decode(encode(white, "PNG"), min_side=30).pixels
    assert np.abs(reduced.astype(int) - expected.astype(int)).max() <= 2


@pytest.mark.parametrize(
    ("words", "ground"),
    [
        ([("NORTH", WHITE, 255)], (0, 0, 0)),
        ([("NORTH", WHITE, 255), ("SOUTH", (0, 0, 0), 255)], (128, 128, 128)),
        ([("NORTH", WHITE, 255), ("SOUTH", (0, 0, 0), 255), ("EAST", (128, 128, 128), 255)], (255, 0, 255)),
        ([("NORTH", WHITE, 255), ("SOUTH", (10, 10, 10), 130), ("EAST", (128, 128, 128), 255), ("WEST", (255, 0, 255), 255)], (0, 255, 0)),
    ],
)
def test_the_ground_is_told_from_all_that_is_seen(words: list[tuple[str, Colour, int]], ground: Colour) -> None:
    assert choose_ground(lettering(*words)) == ground
    pixels = decode(encode(lettering(*words), "PNG")).pixels.astype(int)
    for row in range(len(words)):
        line = pixels[5 + 90 * row // len(words) : 5 + 90 * (row + 1) // len(words), 105:]
        assert np.abs(line - np.array(ground)).max() > 60


@pytest.mark.parametrize(
    "words", [[("NORTH", WHITE, 255)], [("NORTH", WHITE, 255), ("south", (0, 0, 0), 255)], [("NORTH", (0, 0, 0), 255)]]
)
def test_copies_lie_on_the_same_ground(words: list[tuple[str, Colour, int]]) -> None:
    image = lettering(*words, emblem=True, size=(640, 200))
    first = choose_ground(image)
    for scale in (0.25, 0.4, 0.5, 1.7):
        assert choose_ground(image.resize((round(640 * scale), round(200 * scale)), Image.Resampling.LANCZOS)) == first
    expected = decode(encode(image, "PNG")).pixels.astype(int)
    for options in ({"quality": 60}, {"quality": 80, "alpha_quality": 40}, {"lossless": True}):
        found = decode(encode(image, "WebP", **options)).pixels.astype(int)
        assert np.abs(found - expected).mean() < 8
