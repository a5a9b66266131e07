"""What an image tells of its origin while it is decoded."""

import numpy as np
import pytest
from PIL import Image
from shard_data import detailed, encode

from dedup.errors import SampleError
from dedup.storage.images.decode import decode_image


def told_by(data):
    return decode_image(data, max_pixels=100_000)


def test_the_quality_is_the_one_it_was_saved_with():
    picture = detailed(3, (64, 48))
    assert [told_by(encode(picture, quality=quality)).jpeg_quality for quality in range(5, 101)] == list(range(5, 101))


def test_progressive_and_grey_files_have_a_quality_too():
    picture = detailed(3, (64, 48))
    assert told_by(encode(picture, quality=61, progressive=True)).jpeg_quality == 61
    assert told_by(encode(picture.convert("L"), quality=61)).jpeg_quality == 61


def test_the_date_is_that_of_the_photograph_before_that_of_the_file():
    exif = Image.Exif()
    exif[0x0132] = "2021:01:02 03:04:05"
    assert told_by(encode(detailed(1), exif=exif)).exif_date == "2021-01-02 03:04:05"
    exif.get_ifd(0x8769)[0x9003] = "2019:05:04 10:11:12"
    assert told_by(encode(detailed(1), exif=exif)).exif_date == "2019-05-04 10:11:12"
    exif.get_ifd(0x8769)[0x9003] = "0000:00:00 00:00:00"
    assert told_by(encode(detailed(1), exif=exif)).exif_date == "2021-01-02 03:04:05"


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_other_formats_have_only_a_name(kind):
    found = told_by(encode(detailed(1, (40, 30)), kind))
    assert found.format and (found.jpeg_quality, found.exif_date) == (0, "")


def test_whatever_the_bytes_are_it_ends():
    data = encode(detailed(2, (64, 48)), quality=80)
    rng, n_read = np.random.default_rng(0), 0
    for _ in range(300):
        changed = bytearray(data)
        for place in rng.integers(2, 300, 3):
            changed[place] = int(rng.integers(256))
        try:
            found = told_by(bytes(changed))
        except SampleError:
            continue
        n_read += 1
        assert found.format == "JPEG" and 0 <= found.jpeg_quality <= 100
    assert n_read > 20
    loop = b"Exif\0\0MM\0*\0\0\0\x08" + b"\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x08" + b"\0\0\0\x08"
    assert told_by(encode(detailed(2), exif=loop)).exif_date == ""
