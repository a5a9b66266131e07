"""Registration: the affine map that lays one picture over another, from hypotheses refined by tracked points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from dedup.numerics.arraytypes import Pixels
from dedup.numerics.judge.picture import Array, Level, Matrix, local_correlation, warp

UNALIGNED = 0.42  # agreement below which two pictures share nothing
_SURE = 0.6  # agreement from which no further hypotheses are tried
_HOPELESS = 0.2  # agreement below which tracking has nothing to start from
_HOPELESS_SHEAR = 8.0  # degrees; small pictures of copies may have 4
_HOPELESS_STRETCH = 1.5
_GRIDS = (11, 8)  # pixels between tracked points, in the first and the second round
_QUICK_GRID = 17  # pixels between the points of a quick check, which is enough to refuse most look-alikes
_ENOUGH_QUICK = 25  # tracks
_FINE_GRID = 14  # pixels between the points of the last refinement, at full size
_LEAST_FINE_TRACKS = 12
_LEAST_TRACKS = 0.25  # share of tracks that must agree on one map: of planted copies 0.6 and more do, of most look-alikes 0.2 and less
_ENOUGH_TRACKS = 50  # from which that share is reliable
_TRACKS_GAIN = 0.15  # of agreement that a map may lose if most tracks agree on it

# Hypotheses, on small copies of the pictures.
_WINDOW = 9  # of local correlation on the small copy
_TEMPLATE_SCALES = tuple(0.95 * 0.92**k for k in range(9))
_BEST_ROTATIONS = 3
_MOST_UNLIKE = 1.25  # ratio of the aspect ratios of two boxes that may show one picture
_ROTATIONS = (-46.0, -33.0, -22.0, -13.0, -6.0, 6.0, 13.0, 22.0, 33.0, 46.0)  # degrees; tracking finds what lies between

# Tracks, by the optical flow of Lucas and Kanade.
_LK_WINDOW = (15, 15)
_LK_STOPS = [(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, *stop) for stop in ((12, 0.02), (8, 0.03))]  # fine and coarse
_LK_OPTIONS: dict[str, Any] = {"winSize": _LK_WINDOW, "minEigThreshold": 1e-3}
_LEAST_POINTS = 8
_MOST_TRACKS = 0.6  # share of the points whose tracks agree on one map, from which the map is trusted
_ENOUGH_AGREEING = 30  # tracks
_MOVED = 1.3  # pixels from where the fitted map puts a point to where its track ends
_MOVED_LEFT = 0.65  # of the difference in place that may remain where the track ends
_MOVED_GAIN = 7.0  # equalised grey levels by which the difference must fall there: stripes match themselves anywhere


@dataclass(frozen=True)
class Alignment:
    """How a second picture lies on a first."""

    matrix: Matrix  # shape (2, 3); maps a point (x, y) of the first picture to its place in the second, in pixels of their levels
    # mean local correlation of the small copies where they overlap, 0 to 1; `UNALIGNED` or more where most tracks agree on the map, 0
    # where hardly any do
    agreement: float
    # share of the tracked points that end away from where the map puts them: what moved between two shots of one scene
    moved: float


@dataclass(frozen=True)
class Tracked:
    """A map fitted to tracks."""

    matrix: Matrix  # shape (2, 3)
    inliers: float  # share of the tracks that agree with it
    n_tracks: int
    n_points: int  # points that tracks were begun at; flat places get no track
    pyramid: int
    warped: Pixels  # shape (height, width); the second picture laid on the first before it was tracked
    # starts, ends: shape (n_astray, 2); of the tracks that do not agree
    starts: Array
    ends: Array
    remaining: Array  # shape (n_astray,); mean difference at the ends, in equalised grey levels

    @property
    def is_sure(self) -> bool:
        """Whether enough tracks agree to trust the map."""
        return self.inliers >= _MOST_TRACKS and self.inliers * self.n_tracks >= _ENOUGH_AGREEING


def align(a: Level, b: Level) -> Alignment:
    """Find how `b` lies on `a`, both of one side length; the best alignment, however good its agreement."""
    boxes = [box_to_box(box_a, box_b) for box_a in a.boxes for box_b in b.boxes]
    scored = sorted(((agreement(a, b, matrix), k, matrix) for k, matrix in enumerate(boxes)), key=lambda item: (-item[0], item[1]))
    for hypotheses in (within, templates, rotations):
        if scored[0][0] < _SURE:
            further = [(agreement(a, b, matrix), len(scored) + k, matrix) for k, matrix in enumerate(hypotheses(a, b))]
            scored = sorted([*scored, *further], key=lambda item: (-item[0], item[1]))
    best, matrix = scored[0][0], scored[0][2]
    kept: Tracked | None = None
    inliers = []
    is_large = a.width * a.height >= _ENOUGH_QUICK * _QUICK_GRID**2
    for score, _, start in scored[: 1 if best > 0.8 else 2]:
        if score < max(_HOPELESS, 0.7 * scored[0][0]):
            break
        quick = track(a, b, start, _QUICK_GRID, pyramid=2, tolerance=1.5) if is_large else None
        if quick is not None and quick.n_tracks >= _ENOUGH_QUICK and quick.inliers < _LEAST_TRACKS:
            inliers.append(quick.inliers)
            continue
        tracked = track(a, b, start, _GRIDS[0], pyramid=2, tolerance=1.5)
        if tracked is None:
            continue
        inliers.append(tracked.inliers if tracked.n_tracks >= _ENOUGH_TRACKS else 1.0)
        # fine grain is lost on the small copies; tracks that agree with each other are better evidence
        allowance = _TRACKS_GAIN if tracked.is_sure else 0.0
        if (refined := agreement(a, b, tracked.matrix)) > best - allowance:
            best, matrix, kept = refined, tracked.matrix, tracked
            if allowance:
                break
    if max(inliers, default=1.0) < _LEAST_TRACKS:
        best = 0.0
    elif kept is not None and kept.is_sure:
        best = max(best, UNALIGNED)
    if best >= UNALIGNED and not _is_hopelessly_bent(matrix, a, b):
        tracked = track(a, b, matrix, _GRIDS[1], pyramid=1, tolerance=0.7)
        if tracked is not None and (refined := agreement(a, b, tracked.matrix)) >= best - 0.03:
            best, matrix, kept = max(best, refined), tracked.matrix, tracked
        moved = 0.0 if kept is None else share_moved(a, kept)
    else:
        moved = 0.0
    return Alignment(matrix, best, moved)


def _is_hopelessly_bent(matrix: Matrix, a: Level, b: Level) -> bool:
    """Whether a map bends shapes so much that no refinement can make it one of copies."""
    shear, stretch = distortion(matrix, a, b)
    return shear > _HOPELESS_SHEAR or stretch > _HOPELESS_STRETCH


def agreement(a: Level, b: Level, matrix: Matrix) -> float:
    """Mean local correlation on the small copies, weighted by detail; less where they hardly overlap."""
    (_, band_a, scale_a), (_, band_b, scale_b) = a.small, b.small
    small = matrix * scale_b[:2, None] / scale_a
    size = (band_a.shape[1], band_a.shape[0])
    mask = (warp(np.ones_like(band_b), small, size) > 0.99).astype(np.float32)
    correlation, variance_a, variance_b, share = local_correlation(band_a, warp(band_b, small, size), mask, _WINDOW, 4.0)
    inside = (mask > 0) & (share > 0.4)
    if inside.sum() < 60:
        return 0.0
    weight = np.minimum(np.sqrt(np.sqrt(variance_a * variance_b))[inside] + 0.3, 8.0)
    mean = float((weight * np.maximum(correlation[inside], 0.0)).sum() / weight.sum())
    return mean * float(min(1.0, float(inside.mean()) / 0.25) ** 0.5)


def within(a: Level, b: Level) -> list[Matrix]:
    """Each on what lies inside the other, and what lies inside both on each other, where the shapes are alike."""
    ways = [(box_a, box_b) for box_a in a.inner_boxes for box_b in b.boxes]
    ways += [(box_a, box_b) for box_a in a.boxes for box_b in b.inner_boxes]
    ways += [(box_a, box_b) for box_a in a.inner_boxes for box_b in b.inner_boxes]
    return [box_to_box(box_a, box_b) for box_a, box_b in ways if _is_likely(box_a, box_b)]


def _is_likely(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Whether one box laid on the other hardly stretches it."""
    shapes = [(box[2] - box[0]) / (box[3] - box[1]) for box in (a, b)]
    return max(shapes) < _MOST_UNLIKE * min(shapes)


def templates(a: Level, b: Level) -> list[Matrix]:
    """The two best places and scales of one picture within the other."""
    (small_a, _, scale_a), (small_b, _, scale_b) = a.small, b.small
    matches: list[tuple[float, Matrix]] = []
    for is_reverse, (large, part) in enumerate(((small_a, small_b), (small_b, small_a))):
        for scale in _TEMPLATE_SCALES:
            width, height = round(part.shape[1] * scale), round(part.shape[0] * scale)
            if min(width, height) < 10 or width > large.shape[1] or height > large.shape[0]:
                continue
            template = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
            _, value, _, place = cv2.minMaxLoc(cv2.matchTemplate(large, template, cv2.TM_CCOEFF_NORMED))
            to_large = np.array([[width / part.shape[1], 0.0, place[0]], [0.0, height / part.shape[0], place[1]]])
            # + 0.0: no negative zeros
            matches.append((value, to_large if is_reverse else cv2.invertAffineTransform(to_large) + 0.0))
    best = sorted(matches, key=lambda item: -item[0])[:2]
    return [matrix * scale_a / scale_b[:2, None] for _, matrix in best]


def rotations(a: Level, b: Level) -> list[Matrix]:
    """The whole pictures on each other, rotated about the middle by the most likely angles."""
    middle, unrotated = (a.width / 2, a.height / 2), box_to_box(a.boxes[0], b.boxes[0])
    turned = [compose(unrotated, cv2.getRotationMatrix2D(middle, degrees, 1.0)) for degrees in _ROTATIONS]
    return sorted(turned, key=lambda matrix: -_likeness(a, b, matrix))[:_BEST_ROTATIONS]


def _likeness(a: Level, b: Level, matrix: Matrix) -> float:
    """Correlation of the small copies as a whole: a fifth of the cost of `agreement`, and good enough to choose by."""
    (_, band_a, scale_a), (_, band_b, scale_b) = a.small, b.small
    warped = warp(band_b, matrix * scale_b[:2, None] / scale_a, (band_a.shape[1], band_a.shape[0]))
    return float(np.vdot(band_a, warped)) / (float(np.linalg.norm(warped)) + 1e-6)


def track(a: Level, b: Level, matrix: Matrix, grid: int, *, pyramid: int, tolerance: float) -> Tracked | None:
    """Refine a map by tracks; None where there are too few or they fit no map."""
    warped = warp(b.equalised, matrix, (a.width, a.height), 128.0)
    y, x = np.mgrid[grid // 2 : a.height : grid, grid // 2 : a.width : grid]
    points = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    places = points @ matrix[:, :2].T + matrix[:, 2]
    inside = ((places > 2.0) & (places < [b.width - 3.0, b.height - 3.0])).all(axis=1)
    points = points[inside]
    if len(points) < _LEAST_POINTS:
        return None
    tracked, status, error = cv2.calcOpticalFlowPyrLK(
        a.equalised, warped, points[:, None], None, maxLevel=pyramid, criteria=_LK_STOPS[pyramid > 1], **_LK_OPTIONS
    )
    is_tracked = status[:, 0] > 0
    if is_tracked.sum() < _LEAST_POINTS:
        return None
    starts, ends, remaining = points[is_tracked], tracked[is_tracked, 0], error[is_tracked, 0]
    # OpenCV seeds RANSAC with the same seed in every call
    fitted, agreeing = cv2.estimateAffine2D(
        starts, ends, method=cv2.RANSAC, ransacReprojThreshold=tolerance, maxIters=200, confidence=0.99, refineIters=3
    )
    if fitted is None or not np.isfinite(fitted).all():
        return None
    refined = compose(matrix, fitted)
    if not 0.05 < magnification(refined) < 20.0:
        return None
    distance = np.linalg.norm(ends - (starts @ fitted[:, :2].T + fitted[:, 2]), axis=1)
    astray = (distance >= _MOVED) & (distance < 2 * _LK_WINDOW[0])
    inliers = float(agreeing.mean())
    return Tracked(refined, inliers, len(starts), len(points), pyramid, warped, starts[astray], ends[astray], remaining[astray])


def refine(a: Level, b: Level, matrix: Matrix) -> Matrix:
    """A good map made exact by tracks at the size of `a` and `b`; the map itself where they do not agree on one."""
    tracked = track(a, b, matrix, _FINE_GRID, pyramid=1, tolerance=0.7)
    is_better = tracked is not None and tracked.inliers > 0.5 and tracked.n_tracks >= _LEAST_FINE_TRACKS
    return tracked.matrix if tracked is not None and is_better else matrix


def share_moved(a: Level, tracked: Tracked) -> float:
    """Share of the points whose tracks end away from where the map puts them, and lead back from there."""
    if not len(tracked.starts):
        return 0.0
    difference = cv2.boxFilter(cv2.absdiff(a.equalised, tracked.warped).astype(np.float32), -1, _LK_WINDOW)
    in_place = difference[tracked.starts[:, 1].astype(int), tracked.starts[:, 0].astype(int)]
    is_better = (tracked.remaining < _MOVED_LEFT * in_place) & (in_place - tracked.remaining >= _MOVED_GAIN)
    if not is_better.any():
        return 0.0
    starts, ends = tracked.starts[is_better], tracked.ends[is_better]
    back, status, _ = cv2.calcOpticalFlowPyrLK(
        tracked.warped, a.equalised, ends[:, None], None, maxLevel=tracked.pyramid, criteria=_LK_STOPS[0], **_LK_OPTIONS
    )
    returned = (status[:, 0] > 0) & (np.linalg.norm(back[:, 0] - starts, axis=1) < 0.5)
    return float(returned.sum() / tracked.n_points)


def magnification(matrix: Matrix) -> float:
    """Area that a pixel of the first picture has in the second."""
    return float(abs(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]))


def distortion(matrix: Matrix, a: Level, b: Level) -> tuple[float, float]:
    """How a map bends shapes beyond shift, scale and rotation, which is all that crops and screenshots do.

    Returns `shear`: degrees by which the right angle between the axes of either picture is bent; the smaller of the two.
    Returns `stretch`: ratio of the scales along the axes, 1 or more; relative to the aspect ratios of the boxes, if that is closer:
    a copy may have been resized to another aspect ratio.
    """
    linear = matrix[:, :2]
    shears, ratios = [], []
    for axes in (linear.T, linear):
        first, second = np.linalg.norm(axes, axis=1)
        shears.append(float(np.degrees(np.arcsin(min(1.0, abs(float(axes[0] @ axes[1])) / (first * second))))))
        ratios.append(np.log(first / second))
    likely = [0.0] + [float(np.log((x[2] - x[0]) * (y[3] - y[1]) / ((x[3] - x[1]) * (y[2] - y[0])))) for x in b.boxes for y in a.boxes]
    stretch = min(abs(float(ratio) - resized) for ratio in ratios for resized in likely)
    return min(shears), float(np.exp(stretch))


def box_to_box(a: tuple[float, ...], b: tuple[float, ...]) -> Matrix:
    """The map of one box (left, top, right, bottom) onto another."""
    x, y = (b[2] - b[0]) / (a[2] - a[0]), (b[3] - b[1]) / (a[3] - a[1])
    return np.array([[x, 0.0, b[0] - x * a[0]], [0.0, y, b[1] - y * a[1]]])


def compose(after: Matrix, before: Matrix) -> Matrix:
    """One map after another."""
    product: Matrix = (np.vstack([after, [0.0, 0.0, 1.0]]) @ np.vstack([before, [0.0, 0.0, 1.0]]))[:2]
    return product
