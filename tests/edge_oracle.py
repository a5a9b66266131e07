"""The edge consistency score of Webster (2023), by its definition."""

import math

import numpy as np

SMOOTH, SLOPE = (1, 2, 1), (-1, 0, 1)


def score_by_definition(images):
    """Share of the pixels at which more than half of some uint8 images (height, width, channels) have an edge."""
    height, width = images[0].shape[:2]
    shared = 0
    for y in range(height):
        for x in range(width):
            shared += sum(has_edge(image, y, x) for image in images) > len(images) / 2
    return shared / (height * width)


def has_edge(image, y, x):
    channels = image.shape[2]
    return sum(math.hypot(response(image, y, x, c, SLOPE, SMOOTH), response(image, y, x, c, SMOOTH, SLOPE)) for c in range(channels)) > 1.5


def response(image, y, x, channel, rows, columns):
    """Of the 3 x 3 x 3 filter that smooths along the channels; what lies outside a border is the outermost value inside."""
    total = 0.0
    for dy in range(3):
        for dx in range(3):
            for dc in range(3):
                place = (
                    inside(place + step - 1, size) for place, step, size in zip((y, x, channel), (dy, dx, dc), image.shape, strict=True)
                )
                total += rows[dy] * columns[dx] * SMOOTH[dc] * float(image[tuple(place)]) / 255
    return total


def inside(place, size):
    return min(max(place, 0), size - 1)


def score_by_shifts(images):
    """The same with whole images moved by a pixel each way, for large ones."""
    images = np.asarray(images, np.float64) / 255
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (1, 1)), mode="edge")
    n, height, width, channels = images.shape

    def filtered(rows, columns):
        total = np.zeros(images.shape)
        for dy, dx, dc in np.ndindex(3, 3, 3):
            total += rows[dy] * columns[dx] * SMOOTH[dc] * padded[:, dy : dy + height, dx : dx + width, dc : dc + channels]
        return total

    magnitudes = np.sqrt(filtered(SLOPE, SMOOTH) ** 2 + filtered(SMOOTH, SLOPE) ** 2).sum(axis=3)
    return float(((magnitudes > 1.5).sum(axis=0) > n / 2).mean())
