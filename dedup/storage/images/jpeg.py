"""JPEG: the segments before the first scan, and the fast path through libjpeg-turbo's scaled decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import simplejpeg

from dedup.errors import SampleError, unsupported

Pixels = npt.NDArray[np.uint8]

_SOI, _EOI, _SOS, _DQT, _APP1, _APP2, _DNL, _DHP = 0xD8, 0xD9, 0xDA, 0xDB, 0xE1, 0xE2, 0xDC, 0xDE
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15 without DHT, JPG and DAC
_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD8)})  # TEM, RST0 to RST7
# libjpeg scales by the DCT, which these have: baseline, extended and progressive. simplejpeg sizes its buffer for a scaled picture
# whatever the frame is, and libjpeg writes a lossless one at full size: past the end.
_SCALABLE: Final = (0xC0, 0xC1, 0xC2)
_READABLE: Final = (*_SCALABLE, 0xC3, 0xC9, 0xCA)  # and lossless, and arithmetic coding, which Pillow's libjpeg reads at full size
_EXIF, _ICC = b"Exif\0\0", b"ICC_PROFILE\0"
_MAX_PROFILE_BYTES: Final = 4 * 1024 * 1024
_END: Final = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class JpegHead:
    """What a JPEG says of itself before its first scan."""

    frame: int  # the marker's second byte: 0xC0 baseline, 0xC2 progressive, …
    n_bits: int  # per sample
    width: int
    height: int
    n_components: int
    exif: bytes  # the first EXIF segment's TIFF structure, wherever it lies; empty without
    profile: bytes  # the ICC profile, put together; empty without, or if a part is missing
    luminance: bytes = b""  # the first quantisation table with the number 0: 64 numbers of 8 or 16 bits; empty without


def read_head(data: bytes) -> JpegHead:
    """Read the segments up to the first scan, as libjpeg walks through them; thumbnails inside segments do not count.

    `data`: a JPEG, from its first byte.
    Raises SampleError: truncated_image if the data end before a scan, unsupported_format for frames that nothing here decodes (12 bits,
    hierarchical, arithmetic lossless, unknown height), undecodable_image if there is no frame, or a second one.
    """
    at, frame = 2, b""
    kind, exif, profile, luminance = 0, b"", [], b""
    try:
        while True:
            at = data.index(b"\xff", at)
            while data[at] == 0xFF:
                at += 1
            marker, at = data[at], at + 1
            if not marker or marker in _WITHOUT_LENGTH:
                continue
            if marker in (_SOI, _EOI):
                raise SampleError("undecodable_image", f"JPEG of {len(data)} bytes with no image before its marker {marker:#x}")
            length = int.from_bytes(data[at : at + 2], "big")
            end = at + max(length, 2)
            if end > len(data):
                raise IndexError
            if marker == _SOS:
                break
            if marker in _FRAMES or marker == _DHP:
                if frame:
                    raise SampleError("undecodable_image", f"JPEG of {len(data)} bytes with two frame headers")
                kind, frame = marker, data[at + 2 : end]
            elif marker == _APP1 and not exif and data.startswith(_EXIF, at + 2):
                exif = data[at + 8 : end]
            elif marker == _DQT and not luminance and data[at + 2] & 15 == 0:
                luminance = data[at + 3 : min(end, at + 3 + (128 if data[at + 2] >> 4 else 64))]
            elif marker == _APP2 and data.startswith(_ICC, at + 2):
                profile.append(data[at + 14 : end])
            at = end
    except (IndexError, ValueError):
        raise SampleError("truncated_image", f"JPEG of {len(data)} bytes ends before its first scan") from None
    if len(frame) < 6:
        raise SampleError("undecodable_image", f"JPEG of {len(data)} bytes without a frame header before its scan")
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    head = JpegHead(kind, frame[0], width, height, frame[5], exif, _joined(profile), luminance)
    _refuse(head)
    return head


def _refuse(head: JpegHead) -> None:
    """Refuse what no decoder here reads, by its name."""
    if head.frame not in _READABLE:
        kind = "lossless, arithmetic-coded" if head.frame == 0xCB else "hierarchical"
        raise unsupported(f"{kind} JPEG (SOF{head.frame - 0xC0}); baseline, progressive, lossless and arithmetic are read")
    if head.n_bits != 8:
        raise unsupported(f"JPEG of {head.n_bits} bits a sample; 8 are read")
    if not head.height:
        raise unsupported("JPEG that gives its height only after the first scan (DNL)")


def _joined(parts: list[bytes]) -> bytes:
    """An ICC profile from its numbered segments; empty if one is missing, or all are too large to be a profile."""
    if not parts or sum(map(len, parts)) > _MAX_PROFILE_BYTES or any(len(part) < 2 for part in parts):
        return b""
    numbered = {part[0]: part[2:] for part in reversed(parts)}
    if sorted(numbered) != list(range(1, parts[0][1] + 1)):
        return b""
    return b"".join(numbered[number] for number in sorted(numbered))


def decode_scaled(data: bytes, head: JpegHead, min_side: int | None) -> tuple[Pixels, float] | None:
    """Decode with libjpeg-turbo, reduced by eighths as long as both sides keep `min_side` pixels.

    Returns pixels of shape (height, width, 3), RGB, and the factor they were reduced by; None leaves the image to Pillow, which reads
    CMYK and what else this path refuses, and tolerates more damage.
    """
    if head.frame not in _SCALABLE or head.n_components not in (1, 3):
        return None
    side = min_side or 0
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data, min_height=side, min_width=side)
    except (ValueError, MemoryError):
        return None
    # simplejpeg's buffer has this size: it must be the size of the frame read above, or libjpeg has found another one
    eighths = next((n for n in range(1, 9) if (-(-head.height * n // 8), -(-head.width * n // 8)) == (height, width)), 0)
    if not eighths or space in ("CMYK", "YCCK"):
        return None
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=side, min_width=side)
    except (ValueError, MemoryError):
        if data.rstrip(b"\0").endswith(_END):
            return None
        try:  # all pixels may be there and only the end marker missing: appending it repairs the file
            pixels = simplejpeg.decode_jpeg(data + _END, "RGB", min_height=side, min_width=side)
        except (ValueError, MemoryError):
            return None
    return pixels, eighths / 8
