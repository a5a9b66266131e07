"""Where a JPEG comes from, as far as its head tells: the quality it was saved with, the date of the photograph."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
from PIL import Image

# luminance table of ITU-T T.81, annex K.1, whose multiples most encoders use; in the order of the file
_STANDARD: Final = np.array(
    [
        16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40, 26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51, 61, 60, 57, 51,
        56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87, 95, 98, 103, 104, 103, 62, 77, 113, 121, 112, 100, 120, 92, 101,
        103, 99,
    ]
)  # fmt: skip
_SCALES: Final = np.array([5_000 // quality if quality < 50 else 200 - 2 * quality for quality in range(1, 101)])
_TABLES: Final = ((_STANDARD * _SCALES[:, None] + 50) // 100).clip(1, 255)  # shape (100, 64)
_DATES: Final = (0x9003, 0x0132)  # when the photograph was taken, when the file was changed
_EXIF_IFD: Final = 0x8769
_DATE: Final = re.compile(r"(\d{4}):(\d\d):(\d\d) (\d\d:\d\d:\d\d)")


def quality_of(luminance: bytes) -> int:
    """Quality whose table of luminance, as libjpeg derives it from the standard's, is nearest: 1 to 100; 0 if there is no whole table.

    `luminance`: 64 numbers of 8 or 16 bits, in the order of the file.
    """
    if len(luminance) not in (64, 128):
        return 0
    table = np.frombuffer(luminance, np.uint8 if len(luminance) == 64 else ">u2").astype(np.int64)
    return 1 + int(np.abs(_TABLES - table).sum(axis=1).argmin())


def date_of(exif: bytes) -> str:
    """When a photograph was taken, else when its file was changed: ``YYYY-MM-DD HH:MM:SS``; '' without, or if it is broken.

    `exif`: a TIFF structure.
    """
    if not exif:
        return ""
    try:
        found = Image.Exif()
        found.load(exif)
        values = [found.get_ifd(_EXIF_IFD).get(_DATES[0]), found.get(_DATES[1])]
    except Exception:  # broken metadata must not lose the image
        return ""
    matches = (_DATE.match(str(value)) for value in values)
    return next((f"{match[1]}-{match[2]}-{match[3]} {match[4]}" for match in matches if match and match[1] != "0000"), "")
