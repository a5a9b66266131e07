"""Whether a picture has been enlarged: pixels without the detail that so many could show."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from dedup.numerics.arraytypes import Floats, Mask, Pixels

_SIDE: Final = 768  # pixels of the middle that are looked at
_LEAST_SIDE: Final = 48
_LEAST_POWER: Final = 1e-3  # grey levels squared, per pixel
_FACTORS, _RATIOS = (1.3, 1.5, 2.0), (0.045, 0.09, 0.125)
# times that ratio, up to which interpolation decides; and what is left of it: at least 0.27 in 100 enlarged photos of garments; in 100
# that were reduced at most 0.25 where the ratio is below its limit, and 0.44 up to twice the limit
_UNSURE, _INTERPOLATED, _SURELY_INTERPOLATED = 2.0, 0.25, 0.45
_KERNELS: Final = (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.BILINEAR)
_WEIGHTS: Final = np.array([0.299, 0.587, 0.114])


def is_enlarged(pixels: Pixels, factor: float, smaller: Pixels | None) -> bool:
    """Whether a picture has no more detail than one with fewer pixels.

    `pixels`: shape (height, width, 3).
    `factor`: by which it has more pixels to a side than the other.
    `smaller`: shape (height, width, 3); the other, if it shows just the same, upright.
    """
    ratio = detail_ratio(pixels, 1.0 / factor)
    if ratio is None:
        return False
    least = least_ratio(factor)
    if smaller is None or ratio >= _UNSURE * least:
        return ratio < least
    return interpolated_share(pixels, smaller, 1.0 / factor) > (_INTERPOLATED if ratio < least else _SURELY_INTERPOLATED)


def interpolated_share(pixels: Pixels, smaller: Pixels, share: float) -> float:
    """Correlation of the finest detail of a picture with what interpolation makes of a smaller one.

    Filters that enlarge leave some of what they repeat, noise and real detail have nothing of it.

    `pixels`, `smaller`: shape (height, width, 3), of whole pictures that show the same.
    `share`: as in `detail_ratio`.
    """
    (height, width), (rows, columns) = pixels.shape[:2], smaller.shape[:2]
    top, left, side = _middle(height, width)
    box = left * columns / width, top * rows / height, (left + side) * columns / width, (top + side) * rows / height
    source = Image.fromarray((smaller @ _WEIGHTS).astype(np.float32))
    finest, radius = _spectrum(pixels[top : top + side, left : left + side] @ _WEIGHTS)
    is_fine = _is_finest(radius, share)
    finest, found = finest[is_fine], [0.0]
    for kernel in _KERNELS:
        made = _spectrum(np.asarray(source.resize((side, side), kernel, box)))[0][is_fine]
        norm = float(np.sqrt((np.abs(finest) ** 2).sum() * (np.abs(made) ** 2).sum()))
        found.append(float((finest * made.conj()).real.sum()) / norm if norm else 0.0)
    return max(found)


def detail_ratio(pixels: Pixels, share: float) -> float | None:
    """Energy of the finest detail beside that of the detail an octave below it; none is left in pictures that were enlarged.

    `pixels`: shape (height, width, 3); of the whole picture.
    `share`: of its finest scale, from which detail counts as the finest: 1 / the factor by which it may have been enlarged.
    Returns None where the picture is too small, or too flat to tell.
    """
    top, left, side = _middle(*pixels.shape[:2])
    if side < _LEAST_SIDE:
        return None
    spectrum, radius = _spectrum(pixels[top : top + side, left : left + side] @ _WEIGHTS)
    power = np.abs(spectrum) ** 2
    finest = float(power[_is_finest(radius, share)].sum())
    below = float(power[(radius > share / 2.0) & (radius <= share * 0.9)].sum())
    if below < _LEAST_POWER * side**4:
        return None
    return finest / below


def _middle(height: int, width: int) -> tuple[int, int, int]:
    """Top, left and side of the square that is looked at."""
    side = min(height, width, _SIDE)
    return (height - side) // 2, (width - side) // 2, side


def _spectrum(luma: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.complexfloating], Floats]:
    """Spectrum of a square, and of each place the frequency as a share of the finest that pixels show along a side."""
    side, window = len(luma), np.hanning(len(luma))
    spectrum = np.fft.rfft2((luma - luma.mean()) * window[:, None] * window)
    return spectrum, np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)) / 0.5


def _is_finest(radius: Floats, share: float) -> Mask:
    return np.asarray((radius > min(0.95, share * 1.1)) & (radius <= 1.0))


def least_ratio(factor: float) -> float:
    """Ratio below which a picture was enlarged by a factor; of photographs saved as JPEG, 5% of the originals have less at 1.5, 2% at 2."""
    return float(np.interp(factor, _FACTORS, _RATIOS))
