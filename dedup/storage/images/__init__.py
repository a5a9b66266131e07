"""Images: decoding them, reading them again, and their thumbnails."""

from dedup.storage.images.decode import decode_image as decode_image
