"""Whether a picture has been enlarged: pixels without the detail that so many could show."""

from __future__ import annotations

from typing import Final

import numpy as np

from dedup.numerics.arraytypes import Pixels

_SIDE: Final = 768  # pixels of the middle that are looked at
_LEAST_SIDE: Final = 48
_LEAST_POWER: Final = 1e-3  # grey levels squared, per pixel
_FACTORS, _RATIOS = (1.3, 1.5, 2.0), (0.045, 0.09, 0.125)
_WEIGHTS: Final = np.array([0.299, 0.587, 0.114])


def detail_ratio(pixels: Pixels, share: float) -> float | None:
    """Energy of the finest detail beside that of the detail an octave below it; none is left in pictures that were enlarged.

    `pixels`: shape (height, width, 3); of the whole picture.
    `share`: of its finest scale, from which detail counts as the finest: 1 / the factor by which it may have been enlarged.
    Returns None where the picture is too small, or too flat to tell.
    """
    height, width = pixels.shape[:2]
    side = min(height, width, _SIDE)
    if side < _LEAST_SIDE:
        return None
    top, left = (height - side) // 2, (width - side) // 2
    luma = pixels[top : top + side, left : left + side] @ _WEIGHTS
    window = np.hanning(side)
    power = np.abs(np.fft.rfft2((luma - luma.mean()) * window[:, None] * window)) ** 2
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)) / 0.5
    finest = float(power[(radius > min(0.95, share * 1.1)) & (radius <= 1.0)].sum())
    below = float(power[(radius > share / 2.0) & (radius <= share * 0.9)].sum())
    if below < _LEAST_POWER * side**4:
        return None
    return finest / below


def least_ratio(factor: float) -> float:
    """Ratio below which a picture was enlarged by a factor; of photographs saved as JPEG, 5% of the originals have less at 1.5, 2% at 2."""
    return float(np.interp(factor, _FACTORS, _RATIOS))
