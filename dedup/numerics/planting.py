"""The one list of planted changes: what happens to an image between two copies of it on the web.

Demo shards, calibration and the quality benchmark plant the same changes, so that their figures can be compared.
Arrays in, arrays out; Pillow encodes, filters and draws text.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np
from PIL import ImageFilter

from dedup.errors import ConfigError, ShapeError
from dedup.numerics import edits
from dedup.numerics.edits import Pixels

_Apply = Callable[[Pixels, np.random.Generator], Pixels]


@dataclasses.dataclass(frozen=True)
class Change:
    """One way an image is changed on its way to a copy.

    Attributes
    ----------
    name : str
        Unique: the family and the strength, such as ``jpeg_30`` or ``mirror``.
    family : str
        What is done, whatever the strength.
    strength : float
        In the family's own unit (see `CHANGES`); 0 where there is but one.
    apply : callable
        Takes a uint8 array of shape (height, width, 3) and a numpy Generator; returns a new uint8 array of shape
        (new height, new width, 3). Equal states of the generator give equal arrays.
    is_expected : bool
        Whether the default settings are expected to find such a copy.
    is_default : bool
        Whether ``changes(strengths="default")`` holds it: the strengths that are common.
    """

    name: str
    family: str
    strength: float
    apply: _Apply
    is_expected: bool = True
    is_default: bool = True


def _filtered(kernel: ImageFilter.Filter) -> _Apply:
    return partial(edits.on_picture, edits.blur_or_sharpen, kernel=kernel)


# Family, what a strength does, strengths, the common ones, those the default settings are not expected to find: of those
# `benchmarks/quality.py` found fewer than 0.9 of the copies of photos.
_Row = tuple[str, Callable[[float], _Apply], Sequence[float], Sequence[float], Sequence[float]]
_CROPS = (95, 90, 80, 70, 50)
_ROWS: tuple[_Row, ...] = (
    # quality of the encoder
    ("jpeg", lambda s: partial(edits.on_picture, edits.encode, kind="JPEG", quality=int(s)), (3, 10, 30, 50, 75, 90), (10, 30, 75), ()),
    ("webp", lambda s: partial(edits.on_picture, edits.encode, kind="WEBP", quality=int(s)), (30, 75), (30, 75), ()),
    # factor on both sides, and on the width alone
    ("resize", lambda s: partial(edits.on_picture, edits.resize, x=s, y=s), (0.25, 0.5, 0.75, 1.5, 2), (0.5, 0.75, 1.5), ()),
    ("aspect", lambda s: partial(edits.on_picture, edits.resize, x=s, y=1.0), (0.8, 1.25), (0.8, 1.25), ()),
    # per cent of each side that stays; off-centre against two edges
    ("crop", lambda s: partial(edits.on_picture, edits.crop, percent=s, is_centred=True), _CROPS, (95, 90, 80), (50,)),
    ("crop_off", lambda s: partial(edits.on_picture, edits.crop, percent=s, is_centred=False), _CROPS, (95, 90), (70, 50)),
    # per cent of the side added at each end; letterbox: black, above and below
    ("border", lambda s: partial(edits.on_picture, edits.border, percent=s), (2, 5, 10, 20), (2, 5), ()),
    ("letterbox", lambda s: partial(edits.on_picture, edits.letterbox, percent=s), (5, 10, 20), (5, 10), ()),
    # per cent of the height that the bar takes: added beside the image, or drawn over it
    ("caption", lambda s: partial(edits.on_picture, edits.caption, percent=s, is_over=False), (6, 12, 20), (6, 12), ()),
    ("caption_over", lambda s: partial(edits.on_picture, edits.caption, percent=s, is_over=True), (6, 12, 20), (6, 12), ()),
    # opacity in per cent; per cent of the shorter side
    ("watermark", lambda s: partial(edits.on_picture, edits.watermark, percent=s), (20, 35, 60), (20, 35), ()),
    ("logo", lambda s: partial(edits.on_picture, edits.logo, percent=s), (10, 20, 30), (10, 20), ()),
    # light and colour: factors, and per cent between the channels
    ("brightness", lambda s: partial(edits.levels, gain=s), (0.5, 0.75, 1.25, 1.5), (0.75, 1.25), ()),
    ("contrast", lambda s: partial(edits.levels, contrast=s), (0.5, 0.75, 1.3, 1.6), (0.75, 1.3), ()),
    ("gamma", lambda s: partial(edits.levels, gamma=s), (0.5, 0.75, 1.4, 2.2), (0.75, 1.4), ()),
    ("saturation", lambda s: partial(edits.on_picture, edits.saturate, saturation=s), (0.4, 1.6, 2.5), (0.4, 1.6), ()),
    ("cast", lambda s: partial(edits.cast, percent=s), (10, 25), (10,), ()),
    ("grey", lambda s: partial(edits.on_picture, edits.saturate, saturation=0.0), (0,), (0,), ()),
    # deviation in pixels, in grey levels; per cent of an unsharp mask
    ("blur", lambda s: _filtered(ImageFilter.GaussianBlur(s)), (1, 2, 4), (1, 2), ()),
    ("noise", lambda s: partial(edits.noise, deviation=s), (5, 10, 25), (5, 10), ()),
    ("sharpen", lambda s: _filtered(ImageFilter.UnsharpMask(2, int(s), 2)), (100, 300), (100,), ()),
    # degrees to either side, corners filled; mirrors; quarter turns, in degrees
    ("rotate", lambda s: partial(edits.on_picture, edits.rotate, degrees=s), (1, 2, 5, 10, 15), (1, 2, 5), ()),
    ("mirror", lambda s: partial(edits.turn, axis=1), (0,), (0,), ()),
    ("vertical_flip", lambda s: partial(edits.turn, axis=0), (0,), (0,), ()),
    ("quarter_turn", lambda s: partial(edits.turn, quarters=int(s) // 90), (90, 180, 270), (90, 180), ()),
    # per cent of the shorter side shown around it, a window's bar above
    ("screenshot", lambda s: partial(edits.on_picture, edits.screenshot, percent=s), (5, 10), (5,), ()),
)
CHANGES: tuple[Change, ...] = tuple(
    Change(f"{family}_{s:g}" if s else family, family, float(s), make(s), s not in missed, s in common)
    for family, make, strengths, common, missed in _ROWS
    for s in strengths
)
FAMILIES: tuple[str, ...] = tuple(row[0] for row in _ROWS)
_BY_NAME = {change.name: change for change in CHANGES}


def changes(families: Sequence[str] | None = None, strengths: Literal["default", "all"] = "default") -> tuple[Change, ...]:
    """Pick changes from the list.

    Parameters
    ----------
    families : sequence of str, optional
        Names of `FAMILIES`; every family where not given.
    strengths : {"default", "all"}
        The common strengths of each family, or all of them.

    Returns
    -------
    tuple of Change
        In the order of `CHANGES`.

    Raises
    ------
    ConfigError
        If a family or the word for the strengths is unknown.

    Examples
    --------
    >>> [change.name for change in changes(["rotate", "mirror"])]
    ['rotate_1', 'rotate_2', 'rotate_5', 'mirror']
    """
    if strengths not in ("default", "all"):
        raise ConfigError(f"strengths='{strengths}' is unknown; expected default or all")
    for family in families or ():
        if family not in FAMILIES:
            raise ConfigError(_unknown("family of changes", family, FAMILIES))
    picked = FAMILIES if families is None else families
    return tuple(change for change in CHANGES if change.family in picked and (strengths == "all" or change.is_default))


def plant(image: Pixels, name: str, rng: np.random.Generator) -> Pixels:
    """Make the copy that a change makes of an image.

    Parameters
    ----------
    image : uint8 array, shape (height, width, 3)
        RGB; not written to.
    name : str
        Name of a change of `CHANGES`.
    rng : numpy.random.Generator
        Draws what a change leaves open: side, colour, words, noise. Equal states give equal copies.

    Returns
    -------
    uint8 array, shape (new height, new width, 3)

    Raises
    ------
    ConfigError
        If there is no change of that name.
    ShapeError
        If the image is no uint8 RGB array.

    Examples
    --------
    >>> image = np.zeros((40, 60, 3), dtype=np.uint8)
    >>> plant(image, "crop_80", np.random.default_rng(0)).shape
    (32, 48, 3)
    """
    if name not in _BY_NAME:
        raise ConfigError(_unknown("change", name, list(_BY_NAME)))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ShapeError(f"expected non-empty uint8 (height, width, 3), found {image.dtype} {image.shape}")
    return _BY_NAME[name].apply(image, rng)


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    return f"unknown {what} '{name}'; the nearest is '{nearest}', all are listed in dedup.numerics.planting"
