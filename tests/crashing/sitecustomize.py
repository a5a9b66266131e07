"""A decoder with a bug: it ends its process on images that carry a mark.

Python imports a module of this name when it starts. The bug is in every process, so it also tells whether one decodes by itself.
"""

import os

import dedup.storage.images.decode

_decode_image = dedup.storage.images.decode.decode_image


def _with_bug(data, **options):
    if b"CRASH" in data[-16:]:
        os.abort()
    return _decode_image(data, **options)


dedup.storage.images.decode.decode_image = _with_bug
