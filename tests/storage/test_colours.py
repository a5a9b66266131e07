"""Colour profiles: a copy in another colour space looks like its original again."""

from __future__ import annotations

import io
from typing import Any

import icc
import numpy as np
import pytest
from image_data import decode, detailed, encode
from PIL import Image, ImageCms

from dedup.storage.images.colour import to_srgb

PROFILES = {
    "Display P3": icc.profile(icc.DISPLAY_P3, curve=icc.srgb_curve()),
    "Adobe RGB": icc.profile(icc.ADOBE_RGB, 2.2),
    "ProPhoto RGB": icc.profile(icc.PROPHOTO, 1.8),
    "linear": icc.profile(icc.SRGB, 1.0, name="sRGB IEC61966-2.1"),  # names lie
    "swapped": icc.profile((icc.SRGB[1], icc.SRGB[2], icc.SRGB[0]), curve=icc.srgb_curve()),
}


def muted(seed: int) -> Image.Image:
    """Colours that every one of these spaces has."""
    return detailed(seed).point(lambda value: 60 + value // 2)


def in_space(image: Image.Image, profile: bytes) -> Image.Image:
    target = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), target, outputMode="RGB")
    assert converted is not None
    return Image.fromarray(np.asarray(converted))  # which forgets the profile


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {"quality": 95}), ("PNG", {}), ("WebP", {"quality": 95}), ("TIFF", {}), ("AVIF", {"quality": 95})]
)
def test_pictures_of_other_spaces_come_out_in_srgb(kind: str, options: dict[str, Any], name: str) -> None:
    image, profile = muted(1), PROFILES[name]
    stored = in_space(image, profile)
    for min_side in (None, 40):
        expected = decode(encode(image, kind, **options), min_side=min_side).pixels.astype(int)
        found = decode(encode(stored, kind, icc_profile=profile, **options), min_side=min_side).pixels.astype(int)
        ignored = decode(encode(stored, kind, **options), min_side=min_side).pixels.astype(int)
        assert np.abs(found - expected).mean() < 3
        assert np.abs(found - expected).mean() < 0.5 * np.abs(ignored - expected).mean()


def test_srgb_changes_nothing_whoever_wrote_it() -> None:
    pillow = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (pillow, icc.profile(icc.SRGB, curve=icc.srgb_curve(), name="c2")):
        assert to_srgb(profile) is None
        for kind in ("JPEG", "PNG"):
            np.testing.assert_array_equal(
                decode(encode(detailed(2), kind, icc_profile=profile)).pixels, decode(encode(detailed(2), kind)).pixels
            )


@pytest.mark.parametrize("profile", [b"", b"nonsense" * 99, PROFILES["Display P3"][:200], PROFILES["Display P3"][:-30], bytes(4000)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WebP"])
def test_broken_profiles_are_passed_over(kind: str, profile: bytes) -> None:
    assert decode(encode(detailed(2), kind, icc_profile=profile)).pixels.shape == (150, 200, 3)


def test_a_profile_for_other_colours_than_the_pictures_is_passed_over() -> None:
    grey = icc.profile(gamma=1.0, space=b"GRAY")
    np.testing.assert_array_equal(decode(encode(detailed(2), "PNG", icc_profile=grey)).pixels, np.asarray(detailed(2)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_with_a_profile_of_grey(kind: str) -> None:
    grey = detailed(3).convert("L")
    linear = Image.fromarray(np.round((np.asarray(grey) / 255.0) ** 2.2 * 255).astype(np.uint8))
    options = {"quality": 100} if kind == "JPEG" else {}
    found = decode(encode(linear, kind, icc_profile=icc.profile(gamma=1.0, space=b"GRAY"), **options)).pixels
    assert np.abs(found.astype(int) - np.asarray(grey)[:, :, None]).mean() < 6


def test_alpha_survives_the_profile() -> None:
    stored = in_space(muted(4), PROFILES["ProPhoto RGB"])
    mask = Image.new("L", stored.size, 0)
    mask.paste(255, (20, 20, 150, 120))
    stored.putalpha(mask)
    found = decode(encode(stored, "PNG", icc_profile=PROFILES["ProPhoto RGB"])).pixels
    assert (found[:19] == 255).all()
    assert np.abs(found[20:120, 20:150].astype(int) - np.asarray(muted(4))[20:120, 20:150]).mean() < 3


def test_a_profile_in_several_segments_in_any_order() -> None:
    profile = PROFILES["Display P3"]
    data = encode(in_space(muted(5), profile), "JPEG", quality=95)
    half = len(profile) // 2
    parts = [b"ICC_PROFILE\0" + bytes((number, 2)) + part for number, part in ((2, profile[half:]), (1, profile[:half]))]
    segments = b"".join(b"\xff\xe2" + (len(part) + 2).to_bytes(2, "big") + part for part in parts)
    expected = decode(encode(muted(5), "JPEG", quality=95)).pixels.astype(int)
    assert np.abs(decode(data[:2] + segments + data[2:]).pixels - expected).mean() < 3
    # a missing part: no profile
    one = b"\xff\xe2" + (len(parts[0]) + 2).to_bytes(2, "big") + parts[0]
    np.testing.assert_array_equal(decode(data[:2] + one + data[2:]).pixels, decode(data).pixels)
