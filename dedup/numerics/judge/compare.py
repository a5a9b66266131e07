"""Judge a pair of pictures: copies of one, or only look-alikes.

Two registered pictures (`dedup.numerics.judge.register`) are compared in three ways. Each alone has its blind spot:
local correlation of detail suffers from heavy compression and watermarks, the global descriptor from a caption over a
part, and both find two shots of one scene nearly equal, which only the movement between them reveals. All three leave something out, so
what pictures that agree show is compared once more part by part (`dedup.numerics.judge.content`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np

from dedup.numerics.arraytypes import Floats, Pixels
from dedup.numerics.image.descriptor import VARIANTS
from dedup.numerics.judge.content import Content, compare_content
from dedup.numerics.judge.picture import FINE_SIDE, SIDE, SMALL_PICTURE_SIDE, Level, Matrix, Picture
from dedup.numerics.judge.register import UNALIGNED, align, distortion, magnification, refine
from dedup.numerics.judge.relation import Relation, agreement_mask, cells_of, relation_of_copies, relation_of_others
from dedup.numerics.judge.tiles import Overlap, Tiles, overlap, tiles
from dedup.numerics.judge.watermark import unmarked

MAX_DISTANCE = 0.15  # up to which a pair are copies
_MOVED_UP_TO = ((0.003, 0.02), (0.045, 0.012))  # share of tracked points that may have moved, by distance
_MOST_SHEAR = (2.0, 4.0)  # degrees, at full size and of small pictures
_MOST_STRETCH = (1.15, 1.25)
_LEAST_OVERLAP = 0.1  # of the picture that shows more
_LEAST_COVER = 0.5  # of the picture that shows less
_TAIL = 0.1  # of the weight that may agree less than the tile that decides
_BARS = (0.1, 0.16, 0.22, 0.28)  # of a side that a caption bar may cover
_CORNERS = (0.2, 0.3, 0.4)  # of the shorter side that a logo in a corner may cover
_LEAST_UNCOVERED = 0.4  # of the weight that must remain beside bar or logo
_GLOBAL = (0.80, 0.92)  # global similarities at which the tiles' disagreement counts fully, and least
_GLOBAL_OF_MARKED = 0.75  # least global similarity of copies under a heavy watermark
_LEAST_BESIDE = 0.2  # of a tile that a watermark must leave
_GLOBAL_WEIGHT = 0.2  # of a tile's disagreement where the pictures agree globally
_MUCH_DETAIL = 0.35  # mean weight from which the tiles are evidence enough
_MOST_CHANGED = 0.02  # share of the tiles that may show something else, beside one bar or one corner: a small sticker
_MOSTLY_AGREEING = 0.6  # agreement of the median of the detail from which the fine detail may overrule bad tiles
_LEAST_TRUST = 0.12  # a bird on a plain sky: what little detail there is must agree eight times as well
Reason = Literal["", "unaligned", "distorted", "overlap", "moved", "different", "content", "recoloured"]

REASONS: dict[str, str] = {
    "unaligned": "no shift, scale or rotation brings one onto the other",
    "distorted": "only skewing or stretching one fits it to the other: things of one kind, not one picture",
    "overlap": "they share too small a part",
    "moved": "parts moved against each other: two shots of one scene",
    "different": "registered on each other, they differ in parts",
    "content": "one layout or ground, but something else is written, drawn or shown in a part",
    "recoloured": "one drawing in other colours",
    "frames": "one lies in an animation or a file of several pages, which has other frames",
    "not_dropped": "copies, or a part and its whole, which confirm.drop does not name",
    "unreadable": "a picture could not be read again, and confirm.unreadable=refuse",
}


@dataclass(frozen=True)
class Verdict:
    """The result of comparing a pair."""

    is_copy: bool
    distance: float  # how much the parts that agree least disagree, 0 (equal) to 1; at most `max_distance` for copies
    reason: Reason  # why it is not a copy: a key of `REASONS`; empty for a copy
    # shape (2, 3); maps relative coordinates (0 to 1 across width and height) of the first picture, turned, to the second's
    matrix: Floats
    # moved, agreement, similarity, overlap: share of points that moved, local agreement of the tiles, global similarity, and share of the
    # larger picture that was compared; they explain the verdict
    moved: float = 0.0
    agreement: float = 0.0
    similarity: float = 0.0
    overlap: float = 0.0
    relation: Relation = "different"  # what the two are to each other
    inside: Literal["", "first", "second"] = ""  # of parts, the one that lies inside the other
    agreeing_share: float | None = None  # share of what there is to see that both show, 0 to 1; None where they were not laid on each other
    drawn: float | None = None  # how flat and of how few colours both are, 0 to 2; see `dedup.numerics.judge.match`; None as above
    # shape (MASK_SIDE, MASK_SIDE); of pictures of one template or scene, where they agree, across the second; see `agreement_mask`
    mask: Pixels | None = None
    fine_matrix: Floats | None = None  # `matrix`, refined on the fine detail; None where that was not compared


def turned(pixels: Pixels, variant: str) -> Pixels:
    """Turn a picture by one of `dedup.numerics.image.descriptor.VARIANTS`.

    >>> turned(np.arange(6, dtype=np.uint8).reshape(1, 2, 3), "mirror").tolist()
    [[[3, 4, 5], [0, 1, 2]]]
    """
    transpose, reverse_rows, reverse_columns = VARIANTS[variant]
    view = pixels.transpose(1, 0, 2) if transpose else pixels
    view = view[::-1] if reverse_rows else view
    return np.ascontiguousarray(view[:, ::-1] if reverse_columns else view)


def compare(a: Picture, b: Picture, *, max_distance: float = MAX_DISTANCE) -> Verdict:
    """Judge two pictures.

    `a`: already turned as the candidate pair says.
    `max_distance`: up to which they are copies.
    """
    side = SIDE if min(a.native_side, b.native_side) >= 0.75 * SIDE else SMALL_PICTURE_SIDE
    first, second = a.level(side), b.level(side)
    alignment = align(first, second)
    relative = _relative(alignment.matrix, first, second)
    if alignment.agreement < UNALIGNED:
        return Verdict(False, 1.0, "unaligned", relative)
    shear, stretch = distortion(alignment.matrix, first, second)
    is_small = int(side < SIDE)
    if shear > _MOST_SHEAR[is_small] or stretch > _MOST_STRETCH[is_small]:
        return Verdict(False, 1.0, "distorted", relative, alignment.moved)
    # in the frame of the picture with the coarser pixels, to which the other is reduced
    is_reverse = magnification(alignment.matrix) < 1.0
    matrix = cv2.invertAffineTransform(alignment.matrix) if is_reverse else alignment.matrix
    shared = overlap(second, first, matrix) if is_reverse else overlap(first, second, matrix)
    if shared is None or shared.share < _LEAST_OVERLAP or shared.cover < _LEAST_COVER or (compared := tiles(shared)) is None:
        return Verdict(False, 1.0, "overlap", relative, alignment.moved)
    agreement, distance, changed = _distance(compared)
    if distance > max_distance and compared.similarity >= _GLOBAL_OF_MARKED and (marked := _beside_watermark(shared)):
        agreement, distance, changed = marked
    # where all tiles agree, a few tracks went astray on a repeated pattern, and nothing moved
    is_moved = alignment.moved > np.interp(distance, *_MOVED_UP_TO)
    is_other = distance > max_distance or changed > _MOST_CHANGED
    reason: Reason = "different" if is_other else "moved" if is_moved else ""
    may_overrule = reason == "different" and not is_moved and max_distance >= MAX_DISTANCE and _mostly_agrees(compared)
    fine = fine_content(a, b, alignment.matrix, first, second, checks_colours=may_overrule, is_likely=not reason)
    content = None if fine is None else fine.content
    if may_overrule and content is not None and content.is_surely_same:
        # tables hold float32: it must not be rounded up beyond the limit
        reason, distance = "", min(distance, float(np.nextafter(np.float32(max_distance), np.float32(0.0))))
    elif not reason and content is not None and not content.is_same:
        reason = "recoloured" if content.is_drawn and content.agreeing_share == 1.0 else "content"
    verdict = Verdict(not reason, distance, reason, relative, alignment.moved, agreement, compared.similarity, shared.share)
    if not reason:
        is_first_inside = shared.is_first_inside != is_reverse
        relation = relation_of_copies(shared.share)
        verdict = replace(verdict, relation=relation, inside="" if relation == "copy" else "first" if is_first_inside else "second")
    else:
        verdict = replace(verdict, relation=relation_of_others(content, has_moved=bool(is_moved)))
    if fine is None:
        return verdict
    mask = agreement_mask(fine.content, fine.to_cells) if verdict.relation in ("template", "scene") else None
    content = fine.content
    return replace(verdict, agreeing_share=content.agreeing_share, drawn=content.drawn, mask=mask, fine_matrix=fine.matrix)


def _mostly_agrees(compared: Tiles) -> bool:
    """Whether more than half of the detail agrees: what does not may lie over a part of one picture."""
    order = np.argsort(compared.agreement)
    summed = np.cumsum(compared.weight[order])
    middle = int(np.searchsorted(summed, 0.5 * summed[-1]))
    return bool(compared.agreement[order[middle]] >= _MOSTLY_AGREEING)


@dataclass(frozen=True)
class FineContent:
    """What two pictures show at full size, and where its cells lie on the second picture."""

    content: Content
    to_cells: Matrix  # shape (2, 3); maps relative coordinates of the second picture to cells
    matrix: Floats  # shape (2, 3); maps relative coordinates of the first picture to the second's, refined at this size


def fine_content(
    a: Picture, b: Picture, matrix: Matrix, first: Level, second: Level, *, checks_colours: bool, is_likely: bool
) -> FineContent | None:
    """Compare two registered pictures at full size; None where they share next to nothing.

    `matrix`: maps `first` to `second`, the levels at which they were registered.
    """
    fine_a, fine_b = a.level(FINE_SIDE), b.level(FINE_SIDE)
    enlarge_a, enlarge_b = ([fine.width / level.width, fine.height / level.height] for fine, level in ((fine_a, first), (fine_b, second)))
    matrix = matrix * np.array(enlarge_b)[:, None] / np.array([*enlarge_a, 1.0])
    size = fine_b.width, fine_b.height
    is_reverse = magnification(matrix) < 1.0
    if is_reverse:
        fine_a, fine_b, matrix = fine_b, fine_a, cv2.invertAffineTransform(matrix)
    matrix = refine(fine_a, fine_b, matrix)
    shared = overlap(fine_a, fine_b, matrix)
    if shared is None:
        return None
    # pictures are compared in the frame of the one with the coarser pixels
    content = compare_content(shared, checks_colours=checks_colours, is_likely=is_likely)
    relative = _relative(matrix, fine_a, fine_b)
    relative = cv2.invertAffineTransform(relative) if is_reverse else relative
    return FineContent(content, cells_of(np.eye(2, 3) if is_reverse else matrix, size, shared.origin), relative)


def _beside_watermark(shared: Overlap) -> tuple[float, float, float] | None:
    """`_distance` of the pixels that a watermark leaves; None where there is none."""
    mask = unmarked(shared.left[:, :, 0], shared.right[:, :, 0], shared.mask)
    if mask is None:
        return None
    beside = replace(shared, left=shared.left * mask[:, :, None], right=shared.right * mask[:, :, None], mask=mask)
    compared = tiles(beside, least_share=_LEAST_BESIDE)
    return None if compared is None else _distance(compared)


def _distance(compared: Tiles) -> tuple[float, float, float]:
    """Agreement of the tiles that agree least, the distance that follows, and the share of tiles that show something else."""
    agreement, changed = _worst(compared)
    share = np.interp(compared.similarity, _GLOBAL, (1.0, _GLOBAL_WEIGHT)) / np.clip(
        compared.weight.mean() / _MUCH_DETAIL, _LEAST_TRUST, 1.0
    )
    return agreement, float(np.clip((1.0 - agreement) * share, 0.0, 1.0)), changed


def _worst(compared: Tiles) -> tuple[float, float]:
    """Agreement of the tiles that agree least and share of changed tiles, beside the best choice of one caption bar or corner logo."""
    order = np.argsort(compared.agreement, kind="stable")
    agreement, weight, y, x = compared.agreement[order], compared.weight[order], compared.y[order], compared.x[order]
    height, width = compared.shape
    sides = [np.ones(len(order), dtype=bool)]
    sides += [side for bar in _BARS for side in (y > bar, y < 1 - bar, x > bar, x < 1 - bar)]
    for corner in _CORNERS:
        down, across = corner * min(height, width) / height, corner * min(height, width) / width
        sides += [~(row & column) for row in (y < down, y > 1 - down) for column in (x < across, x > 1 - across)]
    # a row for each choice: cumulative weights, from the least agreement up
    outside = np.stack(sides)
    summed = np.cumsum(outside * weight, axis=1, dtype=np.float64)
    total = summed[:, -1]
    deciding = (summed < _TAIL * total[:, None]).sum(axis=1).clip(0, len(order) - 1)
    is_enough = total >= _LEAST_UNCOVERED * total[0]
    changed = (outside[is_enough] & compared.is_changed[order]).mean(axis=1).min()
    return float(agreement[deciding[is_enough]].max()), float(changed)


def _relative(matrix: Matrix, a: Level, b: Level) -> Floats:
    matrix = matrix.copy()
    matrix[:, :2] *= [a.width, a.height]
    relative: Floats = matrix / np.array([[b.width], [b.height]])
    return relative
