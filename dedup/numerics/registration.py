"""Bring two pictures to one frame: which part of one is which part of the other, up to an affine map.

Hypotheses (whole on whole, inside of a frame on inside of a frame, one somewhere within the other at some scale) are
compared by local correlation on a small copy; the best is refined by tracking a grid of points (Lucas-Kanade) and
fitting an affine map to the tracks with RANSAC, so that a caption or a logo over a part does not pull it. OpenCV does
the warps, templates, tracks and fits.
"""

from __future__ import annotations

from dataclasses import dataclass

from dedup.numerics.affine import box_to_box, distortion
from dedup.numerics.hypotheses import agreement, rotations, templates
from dedup.numerics.pictures import Level, Matrix
from dedup.numerics.tracks import Tracked, share_moved, track

_SURE = 0.6  # agreement from which no template is looked for
_HOPELESS = 0.2  # agreement below which tracking starts from nothing
UNALIGNED = 0.42  # agreement below which nothing was found that two pictures share
_HOPELESS_SHEAR = 8.0  # degrees; small pictures of copies may have 4
_HOPELESS_STRETCH = 1.5
_GRIDS = (11, 8)  # pixels between tracked points, in the first and the second round
_QUICK_GRID = 17  # pixels between the points that most look-alikes end with
_ENOUGH_QUICK = 25  # tracks
_LEAST_TRACKS = 0.25  # below which nothing holds the tracks together: of planted copies 0.6 and more, of most look-alikes 0.2 and less
_ENOUGH_TRACKS = 50  # from which the share says so
_TRACKS_GAIN = 0.15  # of agreement that such a map may fall short by


@dataclass(frozen=True)
class Alignment:
    """How a second picture lies on a first.

    Parameters
    ----------
    matrix : float64 array, shape (2, 3)
        Takes a point (x, y) of the first picture to its place in the second, in pixels of their levels.
    agreement : float
        Mean local correlation of the small copies where they overlap, 0 to 1; `UNALIGNED` or more where most tracks
        agree on the map, 0 where hardly any do.
    moved : float
        Share of the tracked points that are found again away from where the map puts them: what moved between two
        shots of one scene.
    """

    matrix: Matrix
    agreement: float
    moved: float


def align(a: Level, b: Level) -> Alignment:
    """Find how `b` lies on `a`.

    Parameters
    ----------
    a, b : Level
        At one side length.

    Returns
    -------
    Alignment
        The best found; its agreement tells how good that is.
    """
    starts = [box_to_box(left, right) for left in a.boxes for right in b.boxes]
    scored = sorted(((agreement(a, b, matrix), k, matrix) for k, matrix in enumerate(starts)), key=lambda item: (-item[0], item[1]))
    for others in (templates, rotations):
        if scored[0][0] < _SURE:
            found = [(agreement(a, b, matrix), len(scored) + k, matrix) for k, matrix in enumerate(others(a, b))]
            scored = sorted([*scored, *found], key=lambda item: (-item[0], item[1]))
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
        # fine grain is lost on the small copy; tracks that agree with each other say more than it does
        allowance = _TRACKS_GAIN if tracked.is_sure else 0.0
        if (there := agreement(a, b, tracked.matrix)) > best - allowance:
            best, matrix, kept = there, tracked.matrix, tracked
            if allowance:
                break
    if max(inliers, default=1.0) < _LEAST_TRACKS:
        best = 0.0
    elif kept is not None and kept.is_sure:
        best = max(best, UNALIGNED)
    if best >= UNALIGNED and not _is_hopelessly_bent(matrix, a, b):
        tracked = track(a, b, matrix, _GRIDS[1], pyramid=1, tolerance=0.7)
        if tracked is not None and (there := agreement(a, b, tracked.matrix)) >= best - 0.03:
            best, matrix, kept = max(best, there), tracked.matrix, tracked
        moved = 0.0 if kept is None else share_moved(a, kept)
    else:
        moved = 0.0
    return Alignment(matrix, best, moved)


def _is_hopelessly_bent(matrix: Matrix, a: Level, b: Level) -> bool:
    """Whether a map is so far from what copies need that no refinement brings it back."""
    shear, stretch = distortion(matrix, a, b)
    return shear > _HOPELESS_SHEAR or stretch > _HOPELESS_STRETCH
