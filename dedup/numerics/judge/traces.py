"""What was done to each of two copies, as the other shows it: a frame, a cut, something laid over, colour taken away.

One picture alone does not tell whether a bar at its edge is part of it. Beside a copy it does: what lies around the part that both show
either goes on beyond its edge, so that the other was cut, or begins anew there, so that a frame was added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import cv2
import numpy as np

from dedup.numerics.arraytypes import Floats, Mask
from dedup.numerics.judge.picture import FINE_SIDE, Array, Level, Matrix, Picture, largest_channel, shifts, warp

_LEAST_OUTSIDE = 0.012  # of a side, that lies beyond the other picture and is looked at
_NEAR = 2  # pixels beyond and before an edge that are compared across it, and by how many the edge may be misplaced
_PARALLELS = (5, 8, 11, 14)  # pixels from the edge of lines inside the picture that tell what steps are usual
_STEP, _LEAST_STEP = 2.0, 6.0  # times the usual step, and grey levels, from which something else begins at an edge
_FRAME = 0.57  # share of the edges along which something else begins: below 0.52 at 95% of cut photos' edges, above 0.68 at 90% of frames'
_FLAT = 4.0  # grey levels of deviation up to which a strip is one colour
_GOES_ON, _MOST_GOING_ON = 7.0, 0.5  # grey levels up to which a flat strip goes on inside, and share of the edge where it may
_BLURRED = 0.1  # of the finest detail inside, that a blurred ground has less than; 0.12 at least around cut photos
_LEAST_BOX = 8  # pixels
_CHANGED, _OF_NOISE = 22.0, 4.0  # grey levels, and deviations of the difference, from which a pixel has changed
_CHANGED_DRAWN = 12.0  # grey levels, in drawn pictures: their grounds have no noise
_LEAST_ON_DRAWN = 0.015  # share that is covered: less is left of letters that were drawn anew in another size
_JOINED = 9  # pixels between letters of one word
_LEAST_PART, _MOST_PARTS = 12, 12  # pixels that have changed side by side; the largest parts that are looked at
_AROUND = 3  # pixels around such a part that are looked at with it
# share of a difference that sharpening the other picture gives, from which nothing was laid over, and nothing that one sees through
_EXPLAINED, _EXPLAINED_VEIL = 0.28, 0.6
_FADING = 0.45  # of the difference just inside such a part, that there is just outside, from which it has no edge
_LEAST_INSIDE = 64  # pixels that both show
# deviation in grey levels, logarithm of the ratio of both, and correlation, from which one picture is the other with less contrast
_VEILED, _LESS_CONTRAST, _SAME = 15.0, 0.1, 0.85
_LEAST_CHROMA = 2.0  # grey levels
_FEW_COLOURS, _NO_COLOUR = 0.6, 0.15  # grey levels; the one of a photo of next to no colours, the other of what a grey file has
_BLEEDS = 13  # pixels to a side of what is left out around each changed pixel
_FARTHEST, _MOST_TONE = 0.05, 6.0  # share of pixels; mean chroma beside the free one, from which it is a tone laid over grey
_LESS_FITTING = 1.1  # times the other picture's difference from what is around it, that something laid over has
# of the difference of both, that the better one may differ from what is around it; in drawn pictures, where little fits
_FITTING, _FITTING_DRAWN = 0.8, 0.6
_BLACK, _WHITE = 3.0, 252.0
_FITTED = 12_000  # pixels to which tones are fitted
_RIDGE = 1e-6  # added to normal equations: where one of their lines is 0, any factor of it will do
_MARGIN = 3


@dataclass(frozen=True)
class Traces:
    """Of one picture of a pair, shares 0 to 1 unless said otherwise; the last five where both show the same."""

    shown: float  # share of what the two show together that it shows
    framed: float  # share of its area that lies around the picture and is plain or blurred: borders, bars
    surrounded: float  # the same, of something else: a page, a screen, a pattern
    overlaid: float  # share of what both show that is covered on it
    colour: float  # chroma that its brightness does not explain, as a share of the larger of the two
    clipped: float  # share of what both show that is black or white
    levels: float  # bits of entropy of its brightness
    brightness: float  # mean, in grey levels
    spread: float  # deviation of its brightness, in grey levels
    blue: float  # mean Cb, in grey levels
    red: float  # mean Cr, in grey levels


def find_traces(first: Picture, second: Picture, matrix: Floats, *, is_drawn: bool = False) -> tuple[Traces, Traces]:
    """Traces of two copies.

    `matrix`: shape (2, 3); maps relative coordinates of the first to the second's.
    `is_drawn`: of drawn, written and printed pictures `clipped` and `levels` are 0: paper is white, and softer letters have more tones.
    """
    a, b = first.level(FINE_SIDE), second.level(FINE_SIDE)
    pixels = np.asarray(matrix, dtype=np.float64) * np.array([[b.width], [b.height]])
    pixels[:, :2] /= [a.width, a.height]
    back = cv2.invertAffineTransform(pixels)
    beside = [_beside(level, _box(other, towards)) for level, other, towards in ((a, b, back), (b, a, pixels))]
    shown = _shown(beside)
    left, right, inside = _laid_on_each_other(a, b, pixels)
    if int(inside.sum()) < _LEAST_INSIDE:
        ends = [Traces(share, one.framed, one.surrounded, 0.0, 1.0, *[0.0] * 6) for share, one in zip(shown, beside, strict=True)]
        return ends[0], ends[1]
    overlaid, changed = _overlaid(left, right, inside, is_drawn=is_drawn)
    plain = inside & ~changed
    plain = plain if int(plain.sum()) >= _LEAST_INSIDE else inside
    planes = [cv2.split(side) for side in (left, right)]
    sides = [[plane[plain] for plane in side] for side in planes]
    colours = [_free_chroma(*side) for side in _far_from(changed, plain, planes, sides)]
    chroma = [one.whole for one in colours]
    spread = chroma if is_drawn else [one.most for one in colours]  # what is drawn may have colours in a small part
    more = int(spread[1] > spread[0])
    # next to no colours, but some all over the picture, and more than one tone laid over grey
    has_few = spread[more] > _FEW_COLOURS and spread[1 - more] < _NO_COLOUR and colours[more].tone < _MOST_TONE * spread[more]
    has_colours = max(chroma) > _LEAST_CHROMA or has_few
    chroma = chroma if max(chroma) > _LEAST_CHROMA else spread
    found = []
    for number, (luma, blue, red) in enumerate(sides):
        clipped = 0.0 if is_drawn else float(((luma <= _BLACK) | (luma >= _WHITE)).mean())
        colour = min(1.0, chroma[number] / max(chroma)) if has_colours else 1.0
        tones = 0.0 if is_drawn else _entropy(luma), float(luma.mean()), float(luma.std()), float(blue.mean()), float(red.mean())
        found.append(Traces(shown[number], beside[number].framed, beside[number].surrounded, overlaid[number], colour, clipped, *tones))
    return found[0], found[1]


def as_list(traces: tuple[Traces, Traces]) -> list[float]:
    """The numbers of both, for a table."""
    return [round(float(value), 5) for one in traces for value in astuple(one)]


@dataclass(frozen=True)
class _Beside:
    """What lies around the part of a picture that the other shows too."""

    inner: float  # share of its area that the other shows too
    framed: float  # share of its area that is a frame, plain or blurred
    surrounded: float  # share of its area that is a frame of another kind
    goes_on: float  # share of its area that goes on beyond the other's edge


def _box(other: Level, matrix: Matrix) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of where another picture lies, in pixels of this one."""
    corners = np.array([[0, 0], [other.width, 0], [other.width, other.height], [0, other.height]], dtype=np.float64)
    places = corners @ matrix[:, :2].T + matrix[:, 2]
    xs, ys = np.sort(places[:, 0]), np.sort(places[:, 1])
    return float(xs[:2].mean()), float(ys[:2].mean()), float(xs[2:].mean()), float(ys[2:].mean())


def _beside(level: Level, box: tuple[float, float, float, float]) -> _Beside:
    """Look at the strips of a picture around a box: they are all a frame, or all go on beyond the other picture's edge."""
    width, height = level.width, level.height
    left, top = max(0.0, box[0]), max(0.0, box[1])
    right, bottom = min(float(width), box[2]), min(float(height), box[3])
    if right - left < _LEAST_BOX or bottom - top < _LEAST_BOX:
        return _Beside(1.0, 0.0, 0.0, 0.0)
    picture = level.ycc
    turned = picture.transpose(1, 0, 2)
    # above, below, left and right of the box, each seen as the rows above the box of a picture that is turned for it
    sides = (
        (picture, top, (left, right)), (picture[::-1], height - bottom, (left, right)),
        (turned, left, (top, bottom)), (turned[::-1], width - right, (top, bottom)),
    )  # fmt: skip
    seen = [
        (*side, stop - start) for rows, depth, (start, stop) in sides
        if depth >= max(2.0, _LEAST_OUTSIDE * len(rows)) and (side := _begins_anew(rows, depth, (start, stop))) is not None
    ]  # fmt: skip
    inner = (right - left) * (bottom - top) / (width * height)
    if not seen:
        return _Beside(inner, 0.0, 0.0, 0.0)
    length = sum(edge for _, _, edge in seen)
    is_plain = 2 * sum(edge for _, is_flat, edge in seen if is_flat) >= length or _is_blurred(level, (left, top, right, bottom))
    is_frame = is_plain or sum(share * edge for share, _, edge in seen) >= _FRAME * length
    outside = 1.0 - inner
    return _Beside(inner, outside * is_plain, outside * (is_frame and not is_plain), outside * (not is_frame))


def _is_blurred(level: Level, box: tuple[float, float, float, float]) -> bool:
    """Whether what lies around a box has next to none of the fine detail that there is inside: a blurred ground."""
    left, top, right, bottom = (round(edge) for edge in box)
    fine = np.abs(cv2.Laplacian(level.luma, cv2.CV_32F))
    inside = fine[top + _MARGIN : bottom - _MARGIN, left + _MARGIN : right - _MARGIN]
    outside = np.ones(fine.shape, dtype=bool)
    outside[max(0, top - _MARGIN) : bottom + _MARGIN, max(0, left - _MARGIN) : right + _MARGIN] = False
    return bool(inside.size and outside.any() and fine[outside].mean() < _BLURRED * inside.mean())


def _begins_anew(rows: Array, depth: float, span: tuple[float, float]) -> tuple[float, bool] | None:
    """Share of an edge along which something else begins, and whether it is plain; a box of some columns begins at the `depth`-th row.

    None where flat ground lies outside that goes on inside: a frame looks so, and a plain wall.
    """
    start, stop = (round(place) for place in span)
    columns = slice(max(0, start + _NEAR), max(start + _NEAR + 1, stop - _NEAR))
    edge = round(depth)
    outside = rows[: max(1, edge - _NEAR), columns].reshape(-1, 3)
    usual = [step for offset in _PARALLELS if (step := _step(rows, edge + _MARGIN + offset, columns)) is not None]
    steps = [step for shift in range(-_NEAR, _NEAR + 1) if (step := _step(rows, edge + shift, columns)) is not None]
    if not usual or not steps:
        return None
    least = max(_LEAST_STEP, _STEP * float(np.median(np.concatenate(usual))))
    share = max(float((step > least).mean()) for step in steps)
    if float(outside.std(axis=0).max()) > _FLAT:
        return share, False
    just_inside = rows[edge + _NEAR : edge + 2 * _NEAR + 1, columns]
    goes_on = float((largest_channel(np.abs(just_inside - outside.mean(axis=0))) < _GOES_ON).mean()) if just_inside.size else 1.0
    return None if goes_on > _MOST_GOING_ON else (1.0, True)


def _step(rows: Array, edge: int, columns: slice) -> Array | None:
    """Difference across an edge at each column, in grey levels of luma or chroma."""
    above, below = edge - _NEAR, edge + _NEAR - 1
    if above < 0 or below >= len(rows):
        return None
    return largest_channel(np.abs(rows[above, columns] - rows[below, columns]))


def _shown(beside: list[_Beside]) -> tuple[float, float]:
    """Share of what two pictures show together that each shows, by the area of what both show."""
    extents = [(one.inner + one.goes_on) / max(one.inner, 1e-6) for one in beside]  # in areas of what both show
    together = extents[0] + extents[1] - 1.0
    return extents[0] / together, extents[1] / together


def _laid_on_each_other(a: Level, b: Level, matrix: Matrix) -> tuple[Array, Array, Mask]:
    """Luma and chroma of both in the frame of the first, the second brought to the first's tones, and where both have pixels."""
    size = (a.width, a.height)
    inside = warp(np.ones((b.height, b.width), np.float32), matrix, size) > 0.99
    kernel = np.ones((2 * _MARGIN + 1, 2 * _MARGIN + 1), np.uint8)
    shrunk = cv2.erode(inside.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    left, right = a.ycc, b.ycc
    if scale > 1.2:  # the second is finer
        right = cv2.GaussianBlur(right, (0, 0), 0.5 * np.sqrt(scale * scale - 1.0))
    right = warp(right, matrix, size)
    return left, np.asarray(right), np.asarray(shrunk > 0)


def _overlaid(left: Array, right: Array, inside: Mask, *, is_drawn: bool) -> tuple[tuple[float, float], Mask]:
    """Share of what both show that is covered on each, and the pixels that differ."""
    least = _CHANGED_DRAWN if is_drawn else _CHANGED
    planes = [(np.ascontiguousarray(left[:, :, 0]), _in_tones_of(left, right, inside))]
    planes += [(np.ascontiguousarray(left[:, :, k]), _in_colours_of(left[:, :, k], right[:, :, k], inside)) for k in (1, 2)]
    unlike = [(one, other) for one, other in planes if ((cv2.blur(np.abs(one - other), (3, 3)) > least) & inside).any()]
    if not unlike:
        return (0.0, 0.0), np.zeros_like(inside)  # most copies; what follows takes ten times as long
    changed = np.zeros_like(inside)
    for one, other in unlike:
        # edges that are misplaced by a pixel do not count
        difference = np.minimum.reduce([cv2.blur(np.abs(one - shifted), (3, 3)) for shifted in shifts(other)])
        changed |= (difference > max(least, _OF_NOISE * 1.48 * float(np.median(difference[inside])))) & inside
    marked = cv2.morphologyEx(changed.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((_JOINED, _JOINED), np.uint8))
    _, labels, sizes, _ = cv2.connectedComponentsWithStats(cv2.dilate(marked, np.ones((3, 3), np.uint8)), connectivity=8)
    covered, n_inside = [0.0, 0.0], float(inside.sum())
    plain = inside & (cv2.dilate(marked, np.ones((3, 3), np.uint8)) == 0)
    around: dict[int, Array] = {}
    parts = 1 + np.argsort(-sizes[1:, cv2.CC_STAT_AREA], kind="stable")[:_MOST_PARTS]
    for part in parts.tolist():
        x, y, width, height, area = sizes[part].tolist()
        box = slice(y, y + height), slice(x, x + width)
        region = (labels[box] == part) & inside[box]
        marks = changed[box] & region
        if int(marks.sum()) < _LEAST_PART:
            continue
        most_unlike = int(np.argmax([np.abs(one[box] - other[box])[marks].mean() for one, other in planes]))
        pair = planes[most_unlike]
        if most_unlike not in around:
            around[most_unlike] = _from_around(pair[0], plain)
        if _fades_out(np.abs(pair[0] - pair[1]), changed, plain, (x, y, width, height)):
            continue
        one, other, beneath = (plane[box][marks] for plane in (*pair, around[most_unlike]))
        on, most = _laid_on(one, other, beneath, _FITTING_DRAWN if is_drawn else _FITTING), _EXPLAINED
        if on is None:
            on, most = _veiled(*(plane[box][region] for plane in pair)), _EXPLAINED_VEIL
        if on is not None and _sharpened_share(pair[on], pair[1 - on], (x, y, width, height), inside) < most:
            covered[on] += area
    shares = [min(1.0, area / n_inside) for area in covered]
    shares = [share if share > _LEAST_ON_DRAWN or not is_drawn else 0.0 for share in shares]
    return (shares[0], shares[1]), np.asarray(cv2.dilate(marked, np.ones((5, 5), np.uint8)) > 0)


def _fades_out(difference: Array, changed: Mask, plain: Mask, box: tuple[int, int, int, int]) -> bool:
    """Whether the difference of a part goes on around it, only less: a vignette or a shadow, and nothing with an edge."""
    x, y, width, height = box
    wide = slice(max(0, y - 2 * _AROUND), y + height + 2 * _AROUND), slice(max(0, x - 2 * _AROUND), x + width + 2 * _AROUND)
    kernel = np.ones((2 * _AROUND + 1, 2 * _AROUND + 1), np.uint8)
    marks = changed[wide].astype(np.uint8)
    outside = (cv2.dilate(marks, kernel, iterations=2) > 0) & plain[wide]
    within = (marks > 0) & (cv2.erode(marks, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0) == 0)
    if not outside.any():
        return False
    return float(difference[wide][outside].mean()) > _FADING * float(difference[wide][within].mean())


def _veiled(left: Array, right: Array) -> int | None:
    """Which of two pictures is covered by what one can see through: 0 or 1, the one with less contrast; None if they show unlike things.

    `left`, `right`: shape (n_pixels,).
    """
    spreads = float(left.std()), float(right.std())
    if min(spreads) < _VEILED or abs(np.log(spreads[0] / spreads[1])) < _LESS_CONTRAST or np.corrcoef(left, right)[0, 1] < _SAME:
        return None
    return int(spreads[1] < spreads[0])


def _laid_on(left: Array, right: Array, around: Array, fitting: float) -> int | None:
    """Which of two pictures something lies on: 0 or 1, None if that can't be told.

    What lies beneath fits what is around it better than what was laid over it, if anything fits.

    `left`, `right`, `around`: shape (n_pixels,).
    `fitting`: share of the difference of both, by which one of them may differ from what is around it.
    """
    errors = [float(np.abs(side - around).mean()) for side in (left, right)]
    if max(errors) < _LESS_FITTING * min(errors) or min(errors) > fitting * float(np.abs(left - right).mean()):
        return None
    return int(errors[1] > errors[0])


def _sharpened_share(covered: Array, other: Array, box: tuple[int, int, int, int], inside: Mask) -> float:
    """Share of what seems to be laid over that sharpening, softening and moving the other picture gives: its lines were there before.

    Letters of a drawing that was reduced or saved coarsely differ by more than noise from their sharp originals.
    """
    x, y, width, height = box
    wide = slice(max(0, y - _AROUND), y + height + _AROUND), slice(max(0, x - _AROUND), x + width + _AROUND)
    shared = inside[wide]
    plain = other[wide]
    soft, softer = cv2.GaussianBlur(plain, (0, 0), 1.0), cv2.GaussianBlur(plain, (0, 0), 2.0)
    basis = [plain - soft, soft - softer, *np.gradient(soft), np.ones_like(plain)]
    lines = np.stack([part[shared] for part in basis]).astype(np.float64)
    difference = (covered[wide] - plain)[shared].astype(np.float64)
    solution = np.linalg.solve(lines @ lines.T + _RIDGE * np.eye(len(lines)), lines @ difference)
    unexplained = float(((difference - solution @ lines) ** 2).sum())
    return 1.0 - unexplained / max(float(((difference - difference.mean()) ** 2).sum()), 1e-9)


def _from_around(luma: Array, plain: Mask) -> Array:
    """Brightness, or chroma, as the plain pixels around each have it."""
    weights = plain.astype(np.float32)
    known = luma * weights
    total, share = np.zeros_like(luma), np.full_like(luma, 1e-6)
    for deviation, weight, factor in ((2.0, 1.0, 1), (6.0, 1e-2, 2), (18.0, 1e-4, 4)):  # the nearest that there are
        total += weight * _blurred(known, deviation, factor)
        share += weight * _blurred(weights, deviation, factor)
    return np.asarray(total / share)


def _blurred(image: Array, deviation: float, factor: int) -> Array:
    """A Gaussian blur; a wide one is taken at a size that is smaller by a factor, where it costs a tenth."""
    if factor == 1:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), deviation))
    height, width = image.shape
    small = cv2.resize(image, (max(1, width // factor), max(1, height // factor)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(cv2.GaussianBlur(small, (0, 0), deviation / factor), (width, height), interpolation=cv2.INTER_LINEAR))


def _in_tones_of(left: Array, right: Array, inside: Mask) -> Array:
    """Luma of the second picture in the tones of the first: through the medians of the first's luma where the second's is alike."""
    places = np.flatnonzero(inside)
    places = places[:: max(1, len(places) // _FITTED)]
    x, y = (np.ascontiguousarray(side[:, :, 0]).ravel()[places] for side in (right, left))
    edges = np.quantile(x, np.linspace(0.0, 1.0, 17))
    bins = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, 15)
    order = np.argsort(bins, kind="stable")
    parts = np.split(order, np.searchsorted(bins[order], np.arange(1, 16)))
    knots = np.array([(np.median(x[part]), np.median(y[part])) for part in parts if len(part) >= 8])
    if len(knots) < 2:
        return np.asarray(right[:, :, 0])
    knots = knots[np.argsort(knots[:, 0], kind="stable")]
    # beyond the darkest and the brightest, tones go on as they are
    knots = np.concatenate([[knots[0] - knots[0, 0]], knots, [knots[-1] + 255.0 - knots[-1, 0]]])
    return np.asarray(np.interp(right[:, :, 0], knots[:, 0], knots[:, 1]), dtype=np.float32)


def _in_colours_of(left: Array, right: Array, inside: Mask) -> Array:
    """A plane of chroma of the second picture in the colours of the first: by a line, level where the second has next to no colours."""
    x, y = right[inside], left[inside]
    spread = float(x.std())
    slope = float(((x - x.mean()) * (y - y.mean())).mean()) / spread**2 if spread > _LEAST_CHROMA else 0.0
    return np.asarray(slope * (right - float(x.mean())) + float(y.mean()), dtype=np.float32)


def _far_from(changed: Mask, plain: Mask, planes: list[Sequence[Array]], sides: list[list[Array]]) -> list[list[Array]]:
    """The pixels by which colours are compared: the colour of a mark bleeds some pixels into what is around it.

    `planes`: three of each picture, shape (height, width); `sides`: the plain pixels of each, shape (n,).
    """
    if not changed.any():
        return sides
    far = plain & (cv2.dilate(changed.astype(np.uint8), np.ones((_BLEEDS, _BLEEDS), np.uint8)) == 0)
    return [[plane[far] for plane in side] for side in planes] if int(far.sum()) >= _LEAST_INSIDE else sides


@dataclass(frozen=True)
class _Chroma:
    """Deviation of the chroma that a polynomial of the brightness does not explain, in grey levels: none in grey and in toned pictures."""

    whole: float  # of all pixels
    most: float  # of all but those that are farthest off: what bleeds from a small mark is no colour of the picture
    tone: float  # length of the mean chroma


def _free_chroma(luma: Array, blue: Array, red: Array) -> _Chroma:
    """The chroma of a picture that is no tone; `luma`, `blue`, `red`: shape (n_pixels,)."""
    tone = (luma - luma.mean()) / np.float32(255.0)
    lines = np.stack([np.ones_like(tone), tone, tone * tone, blue - blue.mean(), red - red.mean()]).astype(np.float64)
    products = lines @ lines.T
    basis, across = products[:3, :3] + _RIDGE * np.eye(3), products[:3, 3:]
    factors = np.linalg.solve(basis, across)
    left_over = np.trace(products[3:, 3:] - across.T @ factors)
    some = lines[:, :: max(1, len(luma) // _FITTED)]
    squares = np.square(some[3:] - factors.T @ some[:3]).mean(axis=0)
    n_most = max(1, round((1.0 - _FARTHEST) * len(squares)))
    most = float(np.partition(squares, n_most - 1)[:n_most].mean())
    mean = float(np.hypot(blue.mean(), red.mean()))
    return _Chroma(float(np.sqrt(max(0.0, left_over) / (2 * len(luma)))), float(np.sqrt(most)), mean)


def _entropy(luma: Array) -> float:
    """Entropy in bits of brightness in steps of two grey levels."""
    counts = np.bincount(np.clip(luma / 2.0, 0, 127).astype(np.intp), minlength=128).astype(np.float64)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())
