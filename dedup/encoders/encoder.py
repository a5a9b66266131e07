"""The interface of encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dedup.numerics.image.descriptor import Crop


class Encoder(Protocol):
    """Turns decoded images into unit vectors. `prepare` may be called by several threads at a time, and `encode` by two."""

    dim: int  # length of a vector
    min_side: int | None  # pixels to which a decoder may reduce an image's sides; None = full size
    limit: int  # images per batch since memory ran out; 0 = it has not
    device: str  # where it computes: ``cpu``, ``cuda:1``

    @property
    def batch_size(self) -> int:
        """Images per batch, unless configured."""

    def prepare(self, crop: Crop) -> npt.NDArray[Any]:
        """Bring one image to a fixed shape."""

    def encode(self, batch: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Encode prepared images: unit rows (n, dim)."""

    def encode_captions(self, captions: Sequence[str]) -> npt.NDArray[np.float32] | None:
        """Unit rows (n, dim) in the space of the images; None if the encoder does not encode text."""

    def notes(self) -> list[str]:
        """Notes on the encoding for the user, each returned once."""
