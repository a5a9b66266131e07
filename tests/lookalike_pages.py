"""Pages of one form, each filled in with other words and numbers."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_FIELDS = ("Name", "Street", "City", "Account", "Amount", "Date", "Reference", "Signed")


def page(seed, size=(480, 360)):
    """A form filled in; `seed` tells with what."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, (252, 250, 244))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(20)
    draw.rectangle((0, 0, size[0], 44), fill=(36, 62, 120))
    draw.text((16, 10), "Order form", "white", font)
    for line, name in enumerate(_FIELDS):
        top = 60 + 36 * line
        draw.text((16, top), name, (90, 90, 90), font)
        draw.line((150, top + 26, size[0] - 16, top + 26), fill=(160, 160, 160))
        word = "".join(chr(97 + int(letter)) for letter in rng.integers(0, 26, 9)).capitalize()
        draw.text((154, top), f"{word} {int(rng.integers(100, 99_999))}", (20, 20, 60), font)
    return image
