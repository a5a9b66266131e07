"""Which copy of a picture has lost least: what pairs of copies show of each other, put together for a whole group."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from dedup.numerics.arraytypes import Floats, Mask
from dedup.numerics.image.descriptor import VARIANTS

_MEASURES: Final = 11  # of each side of a pair, see `dedup.numerics.judge.traces.Traces`
_SHOWN, _FRAMED, _SURROUNDED, _OVERLAID, _COLOUR, _CLIPPED, _LEVELS, _BRIGHTNESS, _SPREAD, _BLUE, _RED, _ASPECT, _DENSITY = range(13)
# measures in which most of many copies are like the original
_BESIDE_MOST: Final = [_LEVELS, _BRIGHTNESS, _SPREAD, _BLUE, _RED, _ASPECT]

# what differs by less is noise
_LEAST: Final = np.array([0.03, 0.012, 0.012, 0.004, 1.4, 0.006, 0.12, 3.0, 3.0, 2.0, 2.0, 0.03, 0.26])
# by how much a single pair must differ to be believed against two thirds of the others: parts that are cut off and frames are seen well
_BELIEVED_ALONE: Final = np.array([0.03, 0.03, 0.03, np.inf, 1.4, np.inf])
_BELIEVED_SHARE: Final = 1.0 / 3.0
_SIGNED: Final = np.array([*_BESIDE_MOST, _DENSITY])  # measures that have no zero of their own
MANY: Final = 5  # copies, of which most have the tones of the original: contrast that was added looks like contrast that was lost
_FEW: Final = 3  # pairs, of which one is enough

# loss for an edit of its kind, and for each unit of its measure
_LOSS: Final = np.array(
    [
        [0.0, 1.0], [0.35, 0.6], [0.35, 0.6], [0.3, 3.0], [0.5, 0.0], [0.1, 0.5],
        [0.06, 0.1], [0.05, 0.002], [0.05, 0.002], [0.05, 0.002], [0.05, 0.002],
        [0.2, 0.5], [0.0, 0.7],
    ]
)  # fmt: skip
_MOST_MEASURED: Final = np.array([5.0, 1.0, 1.0, 0.3, 1.0, 0.5, 2.0, 50.0, 50.0, 50.0, 50.0, 1.0, 5.0])
_TURNED, _RESAVED, _RESCALED, _ENLARGED = 0.08, 0.04, 0.04, 0.1
_SAME_EXTENT: Final = 0.03  # of the area, by which what lies around two copies differs though it is the same
_SAME_SIZE: Final = 0.015  # of the logarithm of pixels to a side, by which copies of one size differ
_FINE_QUALITY, _OF_QUALITY = 85.0, 0.45  # of a JPEG, below which it loses by the logarithm


@dataclass(frozen=True)
class PairOfCopies:
    """Two copies of a group, by their places in it."""

    first: int
    second: int
    variant: str  # how the first was turned to match the second
    transform: Sequence[float] | None  # rows of the affine map from the first, turned, to the second, in relative coordinates
    traces: Sequence[float]  # see `dedup.numerics.judge.traces.as_list`


@dataclass
class Member:
    """One distinct image of a group: what its file tells, and what was found out about it."""

    width: int
    height: int
    jpeg_quality: int | None = None
    # found out
    measures: Floats = field(
        default_factory=lambda: np.full(_DENSITY + 1, np.nan)
    )  # how far it is behind the best of the group, in each measure
    turn: str = "none"  # how it is turned, beside most of the group
    enlarged: float = 1.0  # factor by which it has more pixels to a side than detail
    finest: float = 0.0  # `coarseness` of the finest of the group, counting detail and not pixels
    is_rescaled: bool = False  # whether it is a little larger or smaller than most of the group
    is_resaved: bool = False  # whether a JPEG of the group was saved again without loss as this one

    @property
    def is_known(self) -> bool:
        """Whether it was compared with others of the group."""
        return bool(np.isfinite(self.measures).all())

    @property
    def loss(self) -> float:
        """What it has lost, 0 = nothing; nan if it was not compared."""
        if not self.is_known:
            return float("nan")
        is_edit = self.measures > _LEAST
        values = np.minimum(self.measures, _MOST_MEASURED)
        values[_DENSITY] = self.behind
        is_edit[_DENSITY] = values[_DENSITY] > _LEAST[_DENSITY]
        total = float((is_edit * (_LOSS[:, 0] + _LOSS[:, 1] * values)).sum())
        total += (
            _TURNED * (self.turn != "none") + _RESAVED * self.is_resaved + _RESCALED * self.is_rescaled + _ENLARGED * (self.enlarged > 1.0)
        )
        if self.jpeg_quality is not None and self.jpeg_quality < _FINE_QUALITY:
            total += _OF_QUALITY * float(np.log(_FINE_QUALITY / self.jpeg_quality))
        return total

    @property
    def originality(self) -> float | None:
        """What is left of the picture, 1 = everything that the group has; None if it was not compared."""
        return round(float(np.exp(-self.loss)), 2) if self.is_known else None

    @property
    def coarseness(self) -> float:
        """Logarithm of the factor by which the finest of the group has more pixels to a side."""
        return float(self.measures[_DENSITY])

    @property
    def behind(self) -> float:
        """Logarithm of the factor by which another of the group has more detail to a side."""
        return self.coarseness + float(np.log(self.enlarged)) - self.finest

    def figures(self) -> dict[str, float | None]:
        """Its measures for a table, with None where it was not compared."""
        if not self.is_known:
            return dict.fromkeys(("shown", "framed", "overlaid", "colour", "resolution"))
        shown, framed, surrounded, overlaid, colour, *_ = self.measures.tolist()
        return {
            "shown": float(np.exp(-shown)), "framed": max(framed, surrounded), "overlaid": overlaid, "colour": float(np.exp(-colour)),
            "resolution": float(np.exp(-self.behind)),
        }  # fmt: skip

    def edits(self) -> list[str]:
        """What was done to it, by the names of `EDITS`."""
        if not self.is_known:
            return []
        found = [name for measure, name in _NAMES.items() if self.measures[measure] > _LEAST[measure]]
        if "decoloured" in found and "tinted" in found:
            found.remove("tinted")
        found += ["enlarged"] if self.enlarged > 1.0 else ["reduced"] if self.behind > _REDUCED else []
        found += [] if self.turn == "none" else ["mirrored" if self.turn == "mirror" else "turned"]
        found += ["resaved"] if self.is_resaved else []
        if self.jpeg_quality is not None and self.jpeg_quality < _COARSE_QUALITY:
            found.append("compressed")
        return list(dict.fromkeys(found))


_NAMES: Final[Mapping[int, str]] = {
    _SHOWN: "cropped", _FRAMED: "framed", _SURROUNDED: "framed", _OVERLAID: "overlaid", _COLOUR: "decoloured",
    _CLIPPED: "toned", _LEVELS: "toned", _BRIGHTNESS: "toned", _SPREAD: "toned", _BLUE: "tinted", _RED: "tinted", _ASPECT: "stretched",
}  # fmt: skip
_REDUCED: Final = 0.18  # of the logarithm of its pixels to a side
_COARSE_QUALITY: Final = 60

EDITS: Final[Mapping[str, str]] = {
    "cropped": "it shows less of the picture than another copy",
    "framed": "borders, bars, a page or a screen lie around the picture",
    "overlaid": "something covers part of it: writing, a watermark, a logo, a sticker",
    "decoloured": "grey, or of one tone, where another copy has colours",
    "toned": "brighter, darker or of other contrast than most copies, or so that tones are lost",
    "tinted": "of other colours than most copies",
    "stretched": "of another aspect ratio than most copies, the same things squeezed or drawn out",
    "enlarged": "it has more pixels than detail",
    "reduced": "another copy shows the same with more pixels",
    "mirrored": "a mirror image of most of the group",
    "turned": "turned, or turned and mirrored, beside most of the group",
    "resaved": "a JPEG of the group, saved again without loss",
    "compressed": f"a JPEG of quality below {_COARSE_QUALITY}",
}


def _matrix(variant: str) -> npt.NDArray[np.int64]:
    """A turn as a matrix of coordinates: rows and columns are exchanged first, then reversed."""
    is_transposed, reverse_rows, reverse_columns = VARIANTS[variant]
    matrix = np.array([[-1 if reverse_columns else 1, 0], [0, -1 if reverse_rows else 1]], dtype=np.int64)
    return matrix[:, ::-1].copy() if is_transposed else matrix


_TURNS: Final = {variant: _matrix(variant) for variant in VARIANTS}


def put_together(members: Sequence[Member], pairs: Sequence[PairOfCopies], groups: Sequence[int]) -> None:
    """Fill in `measures` and `turn` of the members of one connected component, as far as pairs connect them.

    `groups`: group of each member. Pairs between groups connect, but members are compared with the best of their own.

    What the member with most pairs has lost is what a third of them say, or one that says much; the others have lost what the next one
    towards it has, and what their own pair says besides, but never less than nothing: whoever makes another look bad by mistake gains
    nothing by it.
    """
    if not pairs:
        return
    steps, turns = zip(*(_step(members, pair) for pair in pairs), strict=True)
    ends = np.array([(pair.first, pair.second) for pair in pairs])
    lost, turn_of = _along_pairs(ends, steps, turns)
    by_group: dict[int, list[int]] = {}
    for place in sorted(turn_of):
        by_group.setdefault(groups[place], []).append(place)
    for places in (places for places in by_group.values() if len(places) > 1):
        measures = _off_usual_extent(_off_usual_tones(np.array([lost[place] for place in places])))
        measures[:, _DENSITY] -= measures[:, _DENSITY].min()
        names = _turns_beside_most({place: turn_of[place] for place in places})
        rescaled = _beside_usual_size(measures[:, _DENSITY])
        for place, values, is_rescaled in zip(places, measures, rescaled.tolist(), strict=True):
            members[place].measures, members[place].turn, members[place].is_rescaled = values, names[place], is_rescaled


_Turn = npt.NDArray[np.int64]


def _along_pairs(
    ends: npt.NDArray[np.int64], steps: Sequence[Floats], turns: Sequence[_Turn]
) -> tuple[dict[int, Floats], dict[int, _Turn]]:
    """What each connected member has lost, and how it is turned, along pairs from the member with most of them; and so on."""
    links: dict[int, list[tuple[int, Floats, _Turn, bool]]] = {}
    for (first, second), step, turn in zip(ends.tolist(), steps, turns, strict=True):
        links.setdefault(first, []).append((second, step, turn, False))
        links.setdefault(second, []).append((first, -step, turn.T, True))
    lost: dict[int, Floats] = {}
    products: dict[int, _Turn] = {}
    for hub in sorted(links, key=lambda place: (-len(links[place]), place)):
        if hub in lost:
            continue
        lost[hub], products[hub] = _lost_by_itself(np.array([step for _, step, *_ in links[hub]])), np.eye(2, dtype=np.int64)
        waiting = deque([hub])
        while waiting:
            place = waiting.popleft()
            for other, step, turn, is_back in links[place]:
                if other not in lost:
                    oriented = turn @ products[place]
                    value = np.maximum(lost[place] + np.where(np.abs(step) > _LEAST, step, 0.0), 0.0)
                    value[_SIGNED] = (lost[place] + step)[_SIGNED]
                    # measured in the second of a pair as it stands, and kept as the hub stands
                    is_transposed = (products[place] if is_back else oriented)[0, 0] == 0
                    value[_ASPECT] = lost[place][_ASPECT] + (-step[_ASPECT] if is_transposed else step[_ASPECT])
                    lost[other], products[other] = value, oriented
                    waiting.append(other)
    return lost, products


def _off_usual_extent(lost: Floats) -> Floats:
    """What members have lost, where most of many have the same around the picture, and nothing plain: it was cut off the others.

    `lost`: shape (n_members, n_measures).
    """
    around = lost[:, _SURROUNDED]
    usual = float(np.median(around))
    if len(lost) < MANY or usual <= _LEAST[_SURROUNDED] or 2 * int((np.abs(around - usual) < _SAME_EXTENT).sum()) < len(lost):
        return lost
    lost = lost.copy()
    lost[:, _SHOWN] -= np.log(1.0 - np.maximum(usual - around, 0.0))
    lost[:, _SURROUNDED] = np.where(around - usual > _SAME_EXTENT, around - usual, 0.0)
    return lost


def _beside_usual_size(coarseness: Floats) -> Mask:
    """Which copies are a little larger or smaller than most: those were made of the others.

    `coarseness`: shape (n_members,); see `Member.coarseness`. Returns shape (n_members,).
    """
    off = np.abs(coarseness - np.median(coarseness))
    if len(off) < MANY or 2 * int((off < _SAME_SIZE).sum()) < len(off):
        return np.zeros(len(off), dtype=bool)
    return np.asarray((off >= _SAME_SIZE) & (off < _LEAST[_DENSITY]))


def _off_usual_tones(lost: Floats) -> Floats:
    """What members have lost, their tones as the distance from those of the original.

    Contrast that was added looks like contrast that was lost: of many copies most have the tones of the original; of few the one with
    most of them has, and nothing is said of how bright and colourful they are.

    `lost`: shape (n_members, n_measures).
    """
    lost = lost.copy()
    tones = lost[:, _BESIDE_MOST]
    if len(lost) >= MANY:
        lost[:, _BESIDE_MOST] = np.abs(tones - np.median(tones, axis=0))
    else:
        lost[:, _BESIDE_MOST] = 0.0
        lost[:, _LEVELS] = tones[:, 0] - tones[:, 0].min()
    return lost


def _lost_by_itself(steps: Floats) -> Floats:
    """What a member has lost, as its pairs say.

    `steps`: shape (n_pairs, n_measures); by how much more each of the others has lost.
    """
    says_so = steps < -_LEAST
    lost = np.zeros(steps.shape[1])
    n_needed = max(1 if len(steps) < _FEW else 2, int(np.ceil(_BELIEVED_SHARE * len(steps))))
    for measure in range(_LEVELS):
        claims = -steps[says_so[:, measure], measure]
        if len(claims) >= n_needed:
            lost[measure] = np.median(claims)
        elif len(claims) and claims.max() > _BELIEVED_ALONE[measure]:
            lost[measure] = claims.max()
    return lost


def mark_enlarged(members: Sequence[Member], place: int, factor: float) -> None:
    """Note that a member has more pixels to a side than detail, by a factor: another may then be the finest."""
    members[place].enlarged = factor
    finest = min(member.coarseness + float(np.log(member.enlarged)) for member in members if member.is_known)
    for member in members:
        member.finest = finest


def _step(members: Sequence[Member], pair: PairOfCopies) -> tuple[Floats, npt.NDArray[np.int64]]:
    """By how much more the second has lost than the first, in each measure; and the turn of the first, as a matrix."""
    first, second = np.array(pair.traces, dtype=np.float64).reshape(2, _MEASURES)
    lost = []
    for one in (first, second):
        shares = (
            -np.log(max(one[_SHOWN], 1e-3)),
            one[_FRAMED],
            one[_SURROUNDED],
            one[_OVERLAID],
            -np.log(max(one[_COLOUR], 0.02)),
            one[_CLIPPED],
        )
        lost.append(np.array([*shares, -one[_LEVELS], *one[_BRIGHTNESS:]]))
    is_transposed = VARIANTS.get(pair.variant, (False,))[0]
    aspect = density = 0.0
    if pair.transform is not None:
        a, b = members[pair.first], members[pair.second]
        width, height = (a.height, a.width) if is_transposed else (a.width, a.height)
        linear = np.array(pair.transform, dtype=np.float64).reshape(2, 3)[:, :2]
        pixels = abs(np.linalg.det(linear)) * b.width * b.height / max(1, width * height)
        density = -0.5 * float(np.log(max(pixels, 1e-9)))
        # lengths that a step across and a step down the first have in the second
        across, down = np.linalg.norm(linear / [width, height] * [[b.width], [b.height]], axis=0)
        aspect = float(np.log(max(across, 1e-9) / max(down, 1e-9)))
    return np.concatenate([lost[1] - lost[0], [aspect, density]]), _TURNS.get(pair.variant, _TURNS["none"])


def _turns_beside_most(turns: Mapping[int, npt.NDArray[np.int64]]) -> dict[int, str]:
    """How each member is turned, beside most; where no half agrees, none is turned."""
    counts = Counter(turn.tobytes() for turn in turns.values())
    (most, n), *_ = counts.most_common()
    if 2 * n <= len(turns):
        return dict.fromkeys(turns, "none")
    reference = next(turn for turn in turns.values() if turn.tobytes() == most)
    names = {turn.tobytes(): name for name, turn in _TURNS.items()}
    return {place: names.get((turn @ reference.T).tobytes(), "none") for place, turn in turns.items()}
