"""Refine a map between two pictures by tracking points of one in the other (Lucas-Kanade) and fitting to the tracks (RANSAC).

B. D. Lucas and T. Kanade, "An iterative image registration technique", IJCAI 1981; M. A. Fischler and R. C. Bolles,
"Random sample consensus", CACM 1981.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dedup.numerics.affine import compose, magnification
from dedup.numerics.pictures import Array, Level, Matrix, warp

_LK_WINDOW = (15, 15)
_LK_STOPS = [(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, *stop) for stop in ((12, 0.02), (8, 0.03))]  # fine and coarse
_LK_OPTIONS: dict[str, Any] = {"winSize": _LK_WINDOW, "minEigThreshold": 1e-3}
_LEAST_POINTS = 8
_MOST_TRACKS = 0.6  # share of the points whose tracks agree on one map, from which the map is trusted
_ENOUGH_AGREEING = 30  # tracks
_MOVED = 1.3  # pixels from where the fitted map puts a point to where it is found
_MOVED_LEFT = 0.65  # of the difference in place that may be left where it is found
_MOVED_GAIN = 7.0  # equalised grey levels that the difference must fall by there: stripes match themselves anywhere


@dataclass(frozen=True)
class Tracked:
    """A map fitted to tracks.

    Parameters
    ----------
    matrix : float64 array, shape (2, 3)
    inliers : float
        Share of the tracks that agree with it; where there is nothing to see no track is begun.
    n_tracks, n_points, pyramid : int
    there : uint8 array, shape (height, width)
        The second picture warped on the first before it was tracked.
    at, to : float32 array, shape (n_astray, 2)
        Points whose tracks do not agree, and where they were found.
    left : float32 array, shape (n_astray,)
        Mean difference left there, in equalised grey levels.
    """

    matrix: Matrix
    inliers: float
    n_tracks: int
    n_points: int
    pyramid: int
    there: npt.NDArray[np.uint8]
    at: Array
    to: Array
    left: Array

    @property
    def is_sure(self) -> bool:
        """Whether so many tracks agree that the map is trusted."""
        return self.inliers >= _MOST_TRACKS and self.inliers * self.n_tracks >= _ENOUGH_AGREEING


def track(a: Level, b: Level, matrix: Matrix, grid: int, *, pyramid: int, tolerance: float) -> Tracked | None:
    """Refine a map by tracks; None where there are too few or they fit no map."""
    there = warp(b.equalised, matrix, (a.width, a.height), 128.0)
    y, x = np.mgrid[grid // 2 : a.height : grid, grid // 2 : a.width : grid]
    points = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    places = points @ matrix[:, :2].T + matrix[:, 2]
    inside = ((places > 2.0) & (places < [b.width - 3.0, b.height - 3.0])).all(axis=1)
    points = points[inside]
    if len(points) < _LEAST_POINTS:
        return None
    tracked, status, error = cv2.calcOpticalFlowPyrLK(
        a.equalised, there, points[:, None], None, maxLevel=pyramid, criteria=_LK_STOPS[pyramid > 1], **_LK_OPTIONS
    )
    found = status[:, 0] > 0
    if found.sum() < _LEAST_POINTS:
        return None
    at, to, left = points[found], tracked[found, 0], error[found, 0]
    # OpenCV seeds RANSAC itself, with the same seed in every call
    fitted, agreeing = cv2.estimateAffine2D(
        at, to, method=cv2.RANSAC, ransacReprojThreshold=tolerance, maxIters=200, confidence=0.99, refineIters=3
    )
    if fitted is None or not np.isfinite(fitted).all():
        return None
    refined = compose(matrix, fitted)
    if not 0.05 < magnification(refined) < 20.0:
        return None
    distance = np.linalg.norm(to - (at @ fitted[:, :2].T + fitted[:, 2]), axis=1)
    astray = (distance >= _MOVED) & (distance < 2 * _LK_WINDOW[0])
    return Tracked(refined, float(agreeing.mean()), len(at), len(points), pyramid, there, at[astray], to[astray], left[astray])


def share_moved(a: Level, tracked: Tracked) -> float:
    """Share of the points that are found again away from where the map puts them, and back from there."""
    if not len(tracked.at):
        return 0.0
    difference = cv2.boxFilter(cv2.absdiff(a.equalised, tracked.there).astype(np.float32), -1, _LK_WINDOW)
    in_place = difference[tracked.at[:, 1].astype(int), tracked.at[:, 0].astype(int)]
    is_better = (tracked.left < _MOVED_LEFT * in_place) & (in_place - tracked.left >= _MOVED_GAIN)
    if not is_better.any():
        return 0.0
    at, to = tracked.at[is_better], tracked.to[is_better]
    back, status, _ = cv2.calcOpticalFlowPyrLK(
        tracked.there, a.equalised, to[:, None], None, maxLevel=tracked.pyramid, criteria=_LK_STOPS[0], **_LK_OPTIONS
    )
    returned = (status[:, 0] > 0) & (np.linalg.norm(back[:, 0] - at, axis=1) < 0.5)
    return float(returned.sum() / tracked.n_points)
