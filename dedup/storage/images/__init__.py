"""Images: decoding them, reading them again, thumbnails."""
