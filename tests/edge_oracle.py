"""The edge consistency score of Webster (2023), by loops over pixels."""

import math

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
