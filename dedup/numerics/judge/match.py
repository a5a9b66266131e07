"""Two registered pictures brought to one tone and one sharpness, so that what is left between them is what they show."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dedup.numerics.arraytypes import Floats, Ids, Mask
from dedup.numerics.judge.picture import Array
from dedup.numerics.judge.tiles import Overlap

_BIN = 8  # grey levels of a bin of the tone curve
_BEYOND = 256.0  # grey levels: more than there are
_BENT = 48.0  # grey levels between the tone curve and the straight line that fits best; beyond, something else was laid over
_GAINS = (0.3, 3.0)
_ROUNDS = 5
_FITTED = 1_500  # pixels to which a line is fitted
_EVERY = 7  # of so many pixels one is looked at where a figure of all is wanted
_LEAST_IN_BIN = (8, 0.0005)  # pixels, and share of them, from which a bin says something
_BLURS = (0.6, 0.9, 1.3, 1.8, 2.5, 3.5)  # deviations in pixels by which the sharper picture is blurred
_WINDOW = 128  # pixels to a side of the part in which blurs are compared
_MOST_DETAIL = 40.0  # grey levels of a pixel's second difference that count: the edge of a mask is one strong line
_GAIN = 1.04  # how much better a blur must fit
_DOTS = 2.5  # deviation of a blur from which it is no difference in sharpness, but dots
_LEAST_ALIKE = 0.6  # correlation of the two once one is blurred
_NOTHING = 1e-3  # added to lengths that may be 0
_LEAST_CONTRAST = 20.0  # grey levels
_COARSE = 4.0  # deviation of the blur whose difference to the picture is detail, in pixels
_LETTERS = 2.5  # instead, in drawn pictures: every line of writing is a dark band, and only its letters differ
# share of flat pixels plus share of its main colours, from which a picture is drawn, written or printed: no part is left out
DRAWN = 1.15
_COLOUR_STEP = 8.0  # grey levels of luma and chroma that count as one colour
_ZERO = np.array([0.0, 8.0, 8.0], dtype=np.float32)  # steps: luma from 0, chroma from -64
_STEPS = np.array([32.0, 15.0, 15.0], dtype=np.float32)
_PLACES = np.array([256.0, 16.0, 1.0], dtype=np.float32)
_FREQUENT = 8  # colours: a page has fewer, a photo has many more
_MOST_NOISE, _GRAINS = 0.03, (1.0, 1.5)  # share of the contrast; deviations of the blurs that average out more, in pixels
_CURVATURE = np.outer([1.0, -2.0, 1.0], [1.0, -2.0, 1.0]).astype(np.float32)
_NOISE_GAIN = 6.0  # deviation of its response to noise of deviation 1
_QUIETEST, _QUARTILE = 0.25, 0.3186  # of the response; of a normal distribution's absolute values a quarter lies below this deviation
_FLAT = (3.0, 0.02)  # range of a pixel's neighbours that counts as none: grey levels, and share of the contrast


@dataclass(frozen=True)
class Matched:
    """Luma of two pictures, shape (height, width), in the tones of the second and as sharp as the duller; 0 outside the mask."""

    left: Array
    right: Array
    mask: Array  # shape (height, width); 1 where both have pixels
    contrast: float  # grey levels between the darkest and the lightest hundredth
    noise: float  # deviation of the detail that is left between most pixels, in grey levels
    difference: Array  # shape (height, width); between the two before noise was averaged out, in grey levels
    # details: shape (height, width) each; the pictures less their coarser parts, 0 outside the mask
    details: tuple[Array, Array]
    # share of the pixels whose neighbours have their value, plus share of the most frequent colours: 0 to 2; the picture's that has less
    drawn: float

    @property
    def is_drawn(self) -> bool:
        """Whether both pictures are mostly flat and of few colours: drawn, written or printed."""
        return self.drawn > DRAWN

    @property
    def inside(self) -> Mask:
        """Where both have pixels."""
        return self.mask > 0


def match(shared: Overlap) -> Matched:
    """Fit the tones of the first picture to the second's, and blur the sharper of the two."""
    mask, inside = shared.mask, shared.mask > 0
    lumas = [np.ascontiguousarray(side[:, :, 0]) for side in (shared.left, shared.right)]
    left, right = _equally_sharp(_in_tones_of(lumas[0], lumas[1], inside), lumas[1], mask, inside)
    contrast = contrast_of(left, right, inside)
    drawn = drawn_share(shared, contrast)
    coarse = _LETTERS if drawn > DRAWN else _COARSE
    details, noise = _details(left, right, mask, coarse)
    difference = np.abs(left - right)
    for grain in _GRAINS:  # dots, dither and heavy noise are averaged out
        if min(noise, max(_grain(side, mask) for side in (left, right))) <= _MOST_NOISE * contrast:
            break
        left, right = blurred(left, mask, grain), blurred(right, mask, grain)
        details, noise = _details(left, right, mask, coarse)
    return Matched(left, right, mask, contrast, noise, difference, details, drawn)


def contrast_of(left: Array, right: Array, inside: Mask) -> float:
    """Grey levels between the darkest and the lightest hundredth of two pictures together."""
    places = np.flatnonzero(inside)[::_EVERY]
    sample = np.concatenate([side.ravel()[places] for side in (left, right)])
    dark, light = np.percentile(sample, [1.0, 99.0])
    return max(_LEAST_CONTRAST, float(light - dark))


def drawn_share(shared: Overlap, contrast: float) -> float:
    """How flat and of how few colours the pictures are, 0 to 2; see `Matched.drawn`."""
    inside = shared.mask > 0
    flat = max(_FLAT[0], _FLAT[1] * contrast)
    places = np.flatnonzero(inside)[:: 2 * _EVERY]
    return min(
        _flatness(np.ascontiguousarray(side[:, :, 0]), inside, flat) + _few_colours(side, places) for side in (shared.left, shared.right)
    )


def detail(luma: Array, mask: Array, coarse: float = _COARSE) -> Array:
    """What is finer than a blur of a deviation of `coarse` pixels; 0 outside the mask."""
    fine: Array = (luma - blurred(luma, mask, coarse)) * mask
    return fine


def _details(left: Array, right: Array, mask: Array, coarse: float) -> tuple[tuple[Array, Array], float]:
    """What is finer than `coarse` in both pictures, and the deviation of its difference in most places."""
    fine, other = detail(left, mask, coarse), detail(right, mask, coarse)
    return (fine, other), noise_of((fine, other), mask)


def noise_of(details: tuple[Array, Array], mask: Array) -> float:
    """Deviation of the difference of two details in most places, in grey levels."""
    places = np.flatnonzero(mask)[::_EVERY]
    fine, other = (side.ravel()[places] for side in details)
    return 1.4826 * float(np.median(np.abs(fine - other)))


def _grain(luma: Array, mask: Array) -> float:
    """Deviation of the noise of a picture, in grey levels.

    After Immerkaer (1996), from the quietest quarter: a page full of small print has room between its letters.
    """
    inside = cv2.erode(mask, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    response = np.abs(cv2.filter2D(luma, -1, _CURVATURE).ravel()[np.flatnonzero(inside)[::_EVERY]])
    return float(np.quantile(response, _QUIETEST)) / _QUARTILE / _NOISE_GAIN if len(response) else 0.0


def fitted_line(x: Floats, y: Floats, gains: tuple[float, float] = _GAINS) -> tuple[float, float]:
    """The gain and offset that fit most of `x` to `y`, shape (n,) each; what is far off hardly counts."""
    gain, offset = 1.0, float(np.median(y - x))
    for _ in range(_ROUNDS):
        weight = trust(np.abs(y - gain * x - offset))
        weight /= weight.sum()
        mean_x, mean_y = float(weight @ x), float(weight @ y)
        weighted = weight * (x - mean_x)
        gain = float(np.clip((float(weighted @ y) + 1.0) / (float(weighted @ x) + 1.0), *gains))
        offset = mean_y - gain * mean_x
    return gain, offset


def trust(residual: Floats) -> Floats:
    """The weight of a pixel in the next round of a fit: less the farther it is off."""
    weight: Floats = 1.0 / (1.0 + (residual / max(6.0, 3.0 * float(np.median(residual)))) ** 2) ** 2
    return weight


def blurred(image: Array, mask: Array, deviation: float) -> Array:
    """A Gaussian blur into which nothing from outside the mask leaks; 0 there."""
    if mask.all():
        return np.asarray(cv2.GaussianBlur(image, (0, 0), deviation))
    weight = cv2.GaussianBlur(mask, (0, 0), deviation, borderType=cv2.BORDER_CONSTANT) + np.float32(1e-3)
    smooth: Array = cv2.GaussianBlur(image * mask, (0, 0), deviation, borderType=cv2.BORDER_CONSTANT) / weight * mask
    return smooth


def _in_tones_of(left: Array, right: Array, inside: Mask) -> Array:
    """`left` through the monotone curve that fits it to `right`: medians of bins, so that what was painted over does not bend it."""
    places = np.flatnonzero(inside)[::_EVERY]
    x, y = (cv2.GaussianBlur(luma, (0, 0), 1.0).ravel()[places] for luma in (left, right))
    gain, offset = fitted_line(*(side[:: max(1, len(x) // _FITTED)].astype(np.float64) for side in (x, y)))
    is_near = np.abs(y - gain * x - offset) < _BENT
    x, y = x[is_near], y[is_near]
    bins = np.clip(x / _BIN, 0, 255 // _BIN).astype(np.intp)
    sizes = np.bincount(bins, minlength=256 // _BIN)
    used = np.flatnonzero(sizes > max(_LEAST_IN_BIN[0], _LEAST_IN_BIN[1] * len(x)))
    if not len(used):
        return left
    ranked = y[np.argsort(bins * 1024.0 + y)]  # bin after bin, ascending in each
    fitted = ranked[(np.cumsum(sizes) - sizes // 2 - 1)[used]].astype(np.float64)
    tones = (np.bincount(bins, weights=x, minlength=len(sizes)) / np.maximum(sizes, 1))[used]
    from scipy.optimize import isotonic_regression  # takes long to load, and most pairs need none

    rising = isotonic_regression(fitted, weights=sizes[used]).x
    # beyond the tones that most pixels have, the line goes on: stars are not as dark as the sky
    ends = [np.array([tones[0] - _BEYOND]), tones, np.array([tones[-1] + _BEYOND])]
    heights = [np.array([rising[0] - gain * _BEYOND]), rising, np.array([rising[-1] + gain * _BEYOND])]
    curve: Array = np.interp(left, np.concatenate(ends), np.concatenate(heights)).astype(np.float32)
    return np.where(inside, curve, np.float32(0.0))


def _equally_sharp(left: Array, right: Array, mask: Array, inside: Mask) -> tuple[Array, Array]:
    """The pictures with the sharper blurred until the two differ least where there is most detail."""
    window = _richest(left, right)
    places = np.flatnonzero(inside[window])[::_EVERY]
    # without what is coarse: light falls off unevenly
    parts = [side[window] - cv2.GaussianBlur(side[window], (0, 0), 2.0 * _COARSE) for side in (left, right)]
    as_they_are = best = _left_over(parts[0], parts[1], places)
    chosen, fitting = (0, 0.0), (parts[0], parts[1])
    for side in (0, 1):
        for deviation in _BLURS:
            pair = list(parts)
            pair[side] = cv2.GaussianBlur(parts[side], (0, 0), deviation)
            remaining = _left_over(pair[0], pair[1], places)
            if remaining * _GAIN < best:
                best, chosen, fitting = remaining * _GAIN, (side, deviation), (pair[0], pair[1])
            elif remaining >= as_they_are:  # it is no sharper than the other, or no more so
                break
    side, deviation = chosen
    # blurred enough, every writing is like an empty page
    if not deviation or _correlation(fitting[0], fitting[1], places) < _LEAST_ALIKE:
        return left, right
    smooth = [left, right]
    smooth[side] = blurred(smooth[side], mask, deviation)
    if deviation >= _DOTS:  # dots or dither: once they are averaged out, the other picture is the sharper one
        other, fixed = parts[1 - side], fitting[side]
        left_over = [_left_over(cv2.GaussianBlur(other, (0, 0), each), fixed, places) for each in _BLURS]
        least = int(np.argmin(left_over))
        if left_over[least] * _GAIN < _left_over(other, fixed, places):
            smooth[1 - side] = blurred(smooth[1 - side], mask, _BLURS[least])
    return smooth[0], smooth[1]


def _richest(left: Array, right: Array) -> tuple[slice, slice]:
    """The window of at most `_WINDOW` pixels to a side that has most detail in either picture."""
    height, width = left.shape
    down, across = min(_WINDOW, height), min(_WINDOW, width)
    detail = np.abs(cv2.Laplacian(left, cv2.CV_32F)) + np.abs(cv2.Laplacian(right, cv2.CV_32F))
    sums = cv2.integral(np.minimum(detail, _MOST_DETAIL))
    totals = sums[down:, across:] - sums[:-down, across:] - sums[down:, :-across] + sums[:-down, :-across]
    top, first = np.unravel_index(int(totals.argmax()), totals.shape)
    return slice(top, top + down), slice(first, first + across)


def _left_over(a: Array, b: Array, places: Ids) -> float:
    difference = np.abs(a.ravel()[places] - b.ravel()[places])
    return float(np.median(difference) + 0.2 * difference.mean()) if len(difference) else 0.0


def _correlation(a: Array, b: Array, places: Ids) -> float:
    x, y = a.ravel()[places], b.ravel()[places]
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y) / (float(np.linalg.norm(x) * np.linalg.norm(y)) + _NOTHING)


def _flatness(luma: Array, inside: Mask, limit: float) -> float:
    kernel = np.ones((3, 3), np.uint8)
    around = cv2.dilate(luma, kernel) - cv2.erode(luma, kernel)
    return float((around[inside] < limit).mean())


def _few_colours(picture: Array, places: Ids) -> float:
    """Share of some pixels that have one of the most frequent colours."""
    steps = np.clip((picture.reshape(-1, 3)[places] / _COLOUR_STEP + _ZERO).round(), 0.0, _STEPS)
    _, counts = np.unique((steps @ _PLACES).astype(np.int32), return_counts=True)
    return float(np.sort(counts)[-_FREQUENT:].sum() / max(1, len(steps)))
