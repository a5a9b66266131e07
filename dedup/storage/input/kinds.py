"""The kind of an image by its bytes: its name never counts."""

from __future__ import annotations

from typing import Final

HEAD_BYTES: Final = 1024  # of a file, that tell nearly all kinds

_STARTS: Final[tuple[tuple[str, tuple[bytes, ...]], ...]] = (
    ("JPEG", (b"\xff\xd8\xff",)),
    ("PNG", (b"\x89PNG\r\n\x1a\n",)),
    ("GIF", (b"GIF87a", b"GIF89a")),
    ("TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    ("BMP", (b"BM",)),
    ("JPEG 2000", (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")),
    ("JPEG XL", (b"\xff\x0a", b"\0\0\0\x0cJXL ")),
    ("JPEG XR", (b"II\xbc",)),
    ("DDS", (b"DDS ",)),
    ("ICO", (b"\0\0\1\0",)),
    ("PSD", (b"8BPS",)),
)
_HEIC_BRANDS: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2"})
_SPACE: Final = b" \t\r\n#"
_SUFFIXES: Final = {
    "JPEG": "jpg", "PNG": "png", "GIF": "gif", "WebP": "webp", "TIFF": "tif", "BMP": "bmp", "JPEG 2000": "jp2", "JPEG XL": "jxl",
    "JPEG XR": "jxr", "DDS": "dds", "ICO": "ico", "PSD": "psd", "PNM": "pnm", "PCX": "pcx", "TGA": "tga", "AVIF": "avif", "HEIC": "heic",
    "SVG": "svg",
}  # fmt: skip
# kinds that begin as a text never does
_SURE: Final = frozenset({"JPEG", "PNG", "GIF", "WebP", "TIFF", "JPEG 2000", "JPEG XL", "JPEG XR", "AVIF", "HEIC"})


def image_kind(data: bytes) -> str:
    """The kind of an image, read or not; '' for what is none.

    `data`: the file, or its first `HEAD_BYTES` bytes: of these alone a TGA can't be told.

    Examples
    --------
    >>> image_kind(b"GIF89a..."), image_kind(b"a text")
    ('GIF', '')
    """
    for kind, starts in _STARTS:
        if data.startswith(starts):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[:1] == b"P" and data[1:2] in (b"1", b"2", b"3", b"4", b"5", b"6") and data[2:3] and data[2] in _SPACE:
        return "PNM"
    if data[4:8] == b"ftyp" and (kind := _of_brands(data)):
        return kind
    if data[-18:-1] == b"TRUEVISION-XFILE.":  # the only mark of a TGA, and only of version 2
        return "TGA"
    if (
        data[:1] == b"\x0a"
        and data[1:2] in (b"\0", b"\2", b"\3", b"\5")
        and data[2:3] == b"\1"
        and data[3:4] in (b"\1", b"\2", b"\4", b"\x08")
    ):
        return "PCX"
    return "SVG" if b"<svg" in data[:HEAD_BYTES] else ""


def is_surely_image(head: bytes) -> bool:
    r"""Whether bytes begin as an image does and nothing else, so that a file may be called what it will.

    Examples
    --------
    >>> is_surely_image(b"\xff\xd8\xff\xe0"), is_surely_image(b"BMW 320i, blue")
    (True, False)
    """
    return image_kind(head) in _SURE


def _of_brands(data: bytes) -> str:
    """AVIF or HEIC, by the brands of an ISO media file; empty for others."""
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    return "HEIC" if brands & _HEIC_BRANDS else ""


def usual_suffix(image: bytes) -> str:
    r"""The suffix that files of an image's kind usually have.

    Examples
    --------
    >>> usual_suffix(b"\xff\xd8\xff\xe0"), usual_suffix(b"?")
    ('jpg', 'img')
    """
    return _SUFFIXES.get(image_kind(image), "img")
