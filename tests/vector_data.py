"""Vectors that tests share."""

import numpy as np

from dedup.numerics.image.views import CROP, INNER, WHOLE
from dedup.numerics.search.project import principal_axes
from dedup.numerics.search.view_join import Views


def power_law(rng, n, dim=48):
    rows = rng.standard_normal((n, dim)) * np.arange(1, dim + 1) ** -0.5
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def copies_of(rng, row, n, cosine):
    """n unit vectors at exactly the given cosine(s) of a row."""
    noise = rng.standard_normal((n, len(row)))
    noise -= (noise @ row)[:, None] * row
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    cosine = np.broadcast_to(cosine, n)[:, None]
    return cosine * row + np.sqrt(1 - cosine**2) * noise


def with_planted(rng, n, dim=48, share=0.3):
    """Float16 rows of which a share are copies of others at cosines from 0.5 to 1."""
    rows = power_law(rng, n, dim)
    n_planted = int(share * n)
    originals = rng.integers(0, n - n_planted, n_planted)
    for place, original in enumerate(originals):
        rows[n - n_planted + place] = copies_of(rng, rows[original], 1, rng.uniform(0.5, 1.0))[0]
    return rows[rng.permutation(n)].astype(np.float16)


def all_similarities(rows):
    """Exact float32 similarities of all pairs."""
    double = rows.astype(np.float64)
    norms = np.sqrt((double**2).sum(1))
    return np.clip(double @ double.T / np.outer(norms, norms), -1, 1).astype(np.float32)


def random_views(rng, n_images, dim=48):
    """Views of images of which many are alike, and the vectors of the whole images."""
    image = np.sort(rng.integers(0, n_images, 5 * n_images))
    kind = rng.choice(np.array([WHOLE, INNER, CROP], np.int8), len(image))
    is_base = (kind != CROP) & (rng.random(len(image)) < 0.7)
    rows = power_law(rng, len(image), dim)
    for place in range(1, len(image), 3):
        rows[place] = copies_of(rng, rows[rng.integers(0, place)], 1, rng.uniform(0.7, 1.0))[0]
    wholes = power_law(rng, n_images, dim)
    for place in range(n_images // 2, n_images):
        wholes[place] = copies_of(rng, wholes[rng.integers(0, n_images // 2)], 1, rng.uniform(0.5, 1.0))[0]
    axes = principal_axes(rows.astype(np.float32))
    vectors = (rows @ axes).astype(np.float16)
    return Views(vectors, image, kind, rng.integers(0, 8, len(image)).astype(np.int8), is_base), wholes.astype(np.float16)
