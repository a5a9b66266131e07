"""The default encoder: the DCT descriptor, which needs no weights."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
import numpy.typing as npt

from dedup.numerics.image import descriptor
from dedup.numerics.similarity import Turn
from dedup.storage.images.decode import RULES

MIN_SIDE = 2 * descriptor.GRID  # scaled decoding at half the grid's pitch changes no coefficient noticeably


class DctEncoder:
    """Unit vectors of low DCT coefficients."""

    dim: int = descriptor.DIM
    min_side: int | None = MIN_SIDE
    batch_size: int = 256
    limit: int = 0
    device: str = "cpu"

    def prepare(self, crop: descriptor.Crop) -> npt.NDArray[np.float32]:
        """The crop's grid, float32 (3, 64, 64)."""
        return crop.grid

    def encode(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Descriptors (n, 384) of prepared images (n, 3, 64, 64)."""
        return descriptor.describe_grids(batch)

    def encode_captions(self, captions: Sequence[str]) -> None:
        """None: a descriptor does not encode text."""

    def notes(self) -> list[str]:
        """None to report."""
        return []


def fingerprint() -> dict[str, str]:
    """Everything that changes the vectors."""
    libraries = f"simplejpeg {version('simplejpeg')} scaled to >= {MIN_SIDE} px, else Pillow {version('pillow').split('.')[0]}"
    decoder = f"{libraries}, rules {RULES}"
    return {"model": "dct-384-v1", "preprocessing": f"area {descriptor.GRID}x{descriptor.GRID} YCbCr", "decoder": decoder}


def turn_names() -> tuple[str, ...]:
    """Names of the turns, without the identity, in the order of `turns`."""
    return tuple(name for name in descriptor.VARIANTS if name != "none")


def turns() -> tuple[Turn, ...]:
    """Signed permutations of the descriptor for each of `turn_names`."""
    return tuple(descriptor.variant_map(name) for name in turn_names())
