"""Images: decoding them, reading them again, and their thumbnails."""
