"""What lies under transparency: white, unless something that can be seen would vanish on it."""

from __future__ import annotations

import itertools
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from dedup.numerics.judge.patches import label_patches

Colour = tuple[int, int, int]

WHITE: Final[Colour] = (255, 255, 255)
# In the order in which they are tried: white as browsers and JPEG converters do, then what is far from the colours before.
_GROUNDS: Final[tuple[Colour, ...]] = (
    WHITE,
    (0, 0, 0),
    (128, 128, 128),
    *((255, 0, 255), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 0), (0, 255, 255)),
    *((r, g, b) for r, g, b in itertools.product((64, 192), repeat=3) if len({r, g, b}) > 1),
)
_SIDE: Final = 128  # longer side at which the ground is chosen: the size at which pictures are compared, whatever they were stored at
_LEAST_ALPHA: Final = 24  # of 255, below which nothing is seen on any ground
_LEAST_CONTRAST: Final = 32  # levels, in the channel that differs most, by which a colour is told from the ground
_ALONE: Final = 0.7  # share of a hidden patch's outline that borders on nothing: letters, not the white side of a drawing
_VANISHED: Final = 0.02  # share of the whole outline that may belong to hidden patches
_ALL, _FIRST, _LAST = slice(None), slice(None, -1), slice(1, None)
# all pixels that have a neighbour on one side, and these neighbours
_NEIGHBOURS: Final = (
    ((_FIRST, _ALL), (_LAST, _ALL)),
    ((_LAST, _ALL), (_FIRST, _ALL)),
    ((_ALL, _FIRST), (_ALL, _LAST)),
    ((_ALL, _LAST), (_ALL, _FIRST)),
)

_Mask = npt.NDArray[np.bool_]


def flatten(image: Image.Image) -> Image.Image:
    """Lay a picture of mode RGBA on the ground that shows what is visible of it; returns mode RGB."""
    ground = Image.new("RGB", image.size, choose_ground(image))
    ground.paste(image, mask=image.getchannel("A"))
    return ground


def choose_ground(image: Image.Image) -> Colour:
    """The first ground on which nothing visible vanishes; if there is none, that on which least does.

    A patch vanishes if its colour can't be told from the ground's and it borders mostly on the ground, as white letters on nothing do. The
    white side of a drawing that shows otherwise, the halo of a sticker and the sky of a cut-out photo do not: there the ground stays white,
    as in the drawing's JPEG. Nor does the straight edge of a whole picture with a transparent margin.

    `image`: mode RGBA, of any size: reduced to 128 pixels first, so that copies of other sizes get the same ground. Colours under alpha 0
    do not count.

    Examples
    --------
    >>> letters = Image.new("RGBA", (60, 40), (255, 255, 255, 0))
    >>> letters.paste((255, 255, 255, 255), (10, 10, 20, 30))
    >>> choose_ground(letters)
    (0, 0, 0)
    """
    colours, alpha = _reduced(image)
    visible = alpha >= min(_LEAST_ALPHA, alpha.max() / 2)
    if not alpha.any():
        return WHITE
    shares = []
    for ground in _GROUNDS:
        contrast = np.abs(colours - np.array(ground, np.float32)).max(axis=2)
        share = _vanished(visible, visible & (contrast < _LEAST_CONTRAST))
        if share <= _VANISHED:
            return ground
        shares.append(share)
    return _GROUNDS[int(np.argmin(shares))]


def _reduced(image: Image.Image) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """Colours (height, width, 3) and alpha (height, width) of the reduced picture, each 0 to 255."""
    factor = max(1, max(image.size) // (2 * _SIDE))
    small = image.convert("RGBa")
    small = small.reduce(factor) if factor > 1 else small
    scale = _SIDE / max(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        small = small.resize(size, Image.Resampling.BOX)
    values = np.asarray(small).astype(np.float32)
    alpha = values[:, :, 3]
    return values[:, :, :3] * (np.float32(255) / np.maximum(alpha, np.float32(1)))[:, :, None], alpha


def _vanished(visible: _Mask, hidden: _Mask) -> float:
    """Share of the outline that hidden patches have with nothing; 1 if nothing visible shows."""
    if not (visible & ~hidden).any():
        return 1.0
    patches, n_patches = label_patches(hidden)
    if not n_patches:
        return 0.0
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    inside = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    # a picture's own rectangular edge is no part of what it shows
    visible, hidden, patches = visible[inside], hidden[inside], patches[inside]
    to_nothing, to_shown = np.zeros(n_patches + 1), np.zeros(n_patches + 1)
    outline = 0
    for here, there in _NEIGHBOURS:
        outline += int(np.count_nonzero(visible[here] & ~visible[there]))
        to_nothing += np.bincount(patches[here][~visible[there]], minlength=n_patches + 1)
        to_shown += np.bincount(patches[here][visible[there] & ~hidden[there]], minlength=n_patches + 1)
    is_alone = to_nothing >= _ALONE * (to_nothing + to_shown)
    is_alone[0] = False
    return float(to_nothing[is_alone].sum()) / max(outline, 1)
