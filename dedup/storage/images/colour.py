"""Colour profiles: pictures in Display P3, Adobe RGB, press CMYK and the like, brought to sRGB."""

from __future__ import annotations

import hashlib
import io
import threading
from typing import Any, Final

import numpy as np
from cachetools import LRUCache
from PIL import Image, ImageCms

_MODES: Final = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # a profile's colour space: the mode it applies to
_SAME_LEVELS: Final = 3  # by which a profile may differ from sRGB and still be called so: versions of sRGB differ by less
_STEPS: Final = 6  # per channel, of the colours on which a profile is compared with sRGB
_ABSENT: Final = object()
_transforms: LRUCache[bytes, Any] = LRUCache(64)
_lock = threading.Lock()  # several threads decode


class Transform:
    """From a profile's colours to sRGB; may be applied by several threads at a time."""

    def __init__(self, mode: str, transform: ImageCms.ImageCmsTransform) -> None:
        self.mode, self._transform = mode, transform

    def __call__(self, image: Image.Image) -> Image.Image:
        """An image of mode RGB; `image` is of the transform's mode."""
        converted = ImageCms.applyTransform(image, self._transform)
        return image if converted is None else converted


def to_srgb(profile: bytes) -> Transform | None:
    """The transform of an embedded ICC profile; remembered for the last profiles seen.

    Returns None if nothing is to be done: without a profile, with one that is sRGB by its effect on a lattice of colours (names lie),
    with a broken one, and with one for a colour space that pictures are not stored in.
    """
    if not profile:
        return None
    key = hashlib.blake2b(profile, digest_size=16).digest()
    with _lock:
        known = _transforms.get(key, _ABSENT)
    if known is _ABSENT:
        known = _build(profile)
        with _lock:
            _transforms[key] = known
    return known  # type: ignore[no-any-return]


def _build(profile: bytes) -> Transform | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _MODES.get(source.profile.xcolor_space.strip())
        if mode is None:
            return None
        target = ImageCms.createProfile("sRGB")
        transform = Transform(mode, ImageCms.buildTransform(source, target, mode, "RGB", ImageCms.Intent.PERCEPTUAL))
        return None if _changes_nothing(transform) else transform
    except Exception:  # a broken profile must not lose the image
        return None


def _changes_nothing(transform: Transform) -> bool:
    if transform.mode == "CMYK":
        return False
    levels = np.linspace(0, 255, _STEPS if transform.mode == "RGB" else 256).round().astype(np.uint8)
    if transform.mode == "RGB":
        colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    else:
        colours = levels[None, :]
    found = np.asarray(transform(Image.fromarray(colours))).astype(np.int16)
    expected = colours if transform.mode == "RGB" else colours[..., None]
    return int(np.abs(found - expected).max()) <= _SAME_LEVELS
