"""A look at a picture that does not depend on how far it was rotated: the disc about its middle, in polar coordinates.

A rotation shifts each circle of the disc, which multiplies its Fourier coefficients by phases. They are divided by the
phase of the first one (the direction in which the disc is brightest), so that rotated copies have one vector. The disc is
read off the descriptor's low frequencies: no pixel is read again.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from dedup.errors import ShapeError
from dedup.numerics.descriptor import CHROMA_SIDE, DIM, GRID, LUMA_SIDE

DISC_DIM = 147
_RADII = 7
_ANGLES = 32
_HARMONICS = 6  # of luma
_CHROMA_HARMONICS = 3  # at every other radius
_ASPECT_STEP = 0.05  # of the logarithm of width / height: matrices are shared within
_MOST_STEPS = 30  # aspect ratios beyond 1 : 4.5 are read as if they were that
_LEAST_DIRECTION = 1e-3  # of the picture's size that the first coefficient must have to tell a direction

Array = npt.NDArray[np.float32]
_SHARE = (np.arange(_RADII) + 0.7) / _RADII * 0.97  # of the largest radius that fits


def disc_looks(descriptors: npt.NDArray[np.floating], aspect: npt.NDArray[np.floating]) -> tuple[Array, npt.NDArray[np.bool_]]:
    """The look of each picture's disc.

    Parameters
    ----------
    descriptors : float array, shape (n, DIM)
        Of whole pictures.
    aspect : float array, shape (n,)
        Width / height of each: the descriptor's square grid has forgotten it.

    Returns
    -------
    looks : float32 array, shape (n, DISC_DIM)
        Unit rows.
    is_usable : bool array, shape (n,)
        Whether the disc tells a direction.

    Raises
    ------
    ShapeError
        If the shapes do not match.

    Examples
    --------
    >>> from dedup.numerics.descriptor import describe
    >>> noise = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    >>> picture = np.kron(noise, np.ones((16, 16, 1), dtype=np.uint8))
    >>> rows = np.stack([describe(picture)[0], describe(np.rot90(picture))[0]])
    >>> looks, _ = disc_looks(rows, np.ones(2))
    >>> bool(looks[0] @ looks[1] > 0.999)
    True
    """
    if descriptors.ndim != 2 or descriptors.shape[1] != DIM or aspect.shape != (len(descriptors),):
        raise ShapeError(f"expected (n, {DIM}) and (n,), found {descriptors.shape} and {aspect.shape}")
    signed = np.asarray(descriptors, dtype=np.float32)
    coefficients = signed * np.abs(signed)
    steps = np.round(np.log(np.maximum(aspect, 1e-6)) / _ASPECT_STEP).clip(-_MOST_STEPS, _MOST_STEPS).astype(np.int64)
    edges = (0, LUMA_SIDE**2, LUMA_SIDE**2 + CHROMA_SIDE**2, DIM)
    circles = np.empty((len(signed), 3, _RADII, _ANGLES), dtype=np.float32)
    for step in np.unique(steps).tolist():
        rows = np.flatnonzero(steps == step)
        luma, chroma = _sampling(step)
        for plane, matrix in enumerate((luma, chroma, chroma)):
            circles[rows, plane] = (coefficients[rows, edges[plane] : edges[plane + 1]] @ matrix.T).reshape(-1, _RADII, _ANGLES)
    spectrum = np.fft.rfft(circles, axis=3)[..., : _HARMONICS + 1] / _ANGLES
    direction = (spectrum[:, 0, :, 1] * _SHARE**2).sum(axis=1)
    is_usable = np.abs(direction) > _LEAST_DIRECTION * np.abs(circles[:, 0]).mean(axis=(1, 2))
    turned = np.exp(-1j * np.angle(direction)[:, None] * np.arange(_HARMONICS + 1))
    spectrum = spectrum * turned[:, None, None, :] * np.sqrt(_SHARE)[:, None]
    luma_part, chroma_part = spectrum[:, 0], spectrum[:, 1:, ::2, : _CHROMA_HARMONICS + 1]
    level = (luma_part[:, :, 0].real * np.sqrt(_SHARE)).sum(axis=1) / _SHARE.sum()
    parts = [luma_part[:, :, 0].real - level[:, None] * np.sqrt(_SHARE), chroma_part[..., 0].real]
    parts += [part for block in (luma_part[:, :, 1:], chroma_part[..., 1:]) for part in (block.real, block.imag)]
    flat = np.concatenate([part.reshape(len(signed), -1) for part in parts], axis=1)
    looks = np.sign(flat) * np.sqrt(np.abs(flat))
    norms = np.linalg.norm(looks, axis=1)
    is_usable &= norms > 0.0
    return (looks / np.where(norms > 0.0, norms, 1.0)[:, None]).astype(np.float32), is_usable


@lru_cache(maxsize=2 * _MOST_STEPS + 1)
def _sampling(step: int) -> tuple[Array, Array]:
    """Values on the circles from the DCT coefficients: (radii * angles, 256) of luma and (…, 64) of chroma."""
    width, height = np.exp(step * _ASPECT_STEP), 1.0
    radius = _SHARE[:, None] * min(width, height) / 2
    angle = np.arange(_ANGLES) * 2 * np.pi / _ANGLES
    across, down = 0.5 + radius * np.cos(angle) / width, 0.5 + radius * np.sin(angle) / height

    def waves(place: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float64]:
        values: npt.NDArray[np.float64] = np.cos(np.pi * np.arange(side) * place[..., None]) * np.sqrt(2.0 / GRID)
        values[..., 0] /= np.sqrt(2.0)
        return values

    matrices = [
        np.einsum("rti,rtj->rtij", waves(down, side), waves(across, side)).reshape(_RADII * _ANGLES, side * side)
        for side in (LUMA_SIDE, CHROMA_SIDE)
    ]
    return matrices[0].astype(np.float32), matrices[1].astype(np.float32)
