"""The same photos written in over a hundred kinds of files: which are read, which are refused and why, and whether each photo is one group.

python benchmarks/formats.py PHOTOS --n 5 --json formats.json
"""

from __future__ import annotations

import argparse
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from machine import describe_machine
from PIL import Image, ImageCms

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import icc

from dedup.storage.input.samples import IMAGE_SUFFIXES

SIDE = 400
Make = Callable[[Image.Image], bytes]


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """A file as Pillow writes it."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def as_is(kind: str, mode: str = "RGB", **options: Any) -> Make:
    """The photo in one of Pillow's modes."""
    return lambda photo: saved(photo.convert(mode), kind, **options)


def with_exif(kind: str, orientation: int) -> Make:
    """The photo stored turned, with the orientation that turns it back."""
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    return lambda photo: saved(photo.transpose(back[orientation]), kind, exif=exif.tobytes())


def with_profile(kind: str, profile: bytes, **options: Any) -> Make:
    """The photo in another colour space, with its profile."""

    def make(photo: Image.Image) -> bytes:
        target = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(photo, ImageCms.createProfile("sRGB"), target, outputMode="RGB")
        return saved(Image.fromarray(np.asarray(converted)), kind, icc_profile=profile, **options)

    return make


def alpha(photo: Image.Image, value: int = 255) -> Image.Image:
    """The photo with an alpha channel."""
    return Image.merge("RGBA", (*photo.split(), Image.new("L", photo.size, value)))


def grey16(photo: Image.Image, bits: int) -> Image.Image:
    """Grey of some bits in 16."""
    values = np.asarray(photo.convert("L")).astype(np.uint16) << (bits - 8)
    return Image.fromarray(values)


def animated(kind: str, **options: Any) -> Make:
    """An animation in which nothing moves."""
    return lambda photo: saved(photo, kind, save_all=True, append_images=[photo, photo], duration=100, **options)


def chunk(name: bytes, data: bytes, crc: int | None = None) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) if crc is None else crc)


def png_with(*chunks: bytes) -> Make:
    """A PNG with chunks after its header."""
    return lambda photo: (data := saved(photo, "PNG"))[:33] + b"".join(chunks) + data[33:]


def cut(share: float) -> Make:
    """A JPEG that ends early."""
    return lambda photo: (data := saved(photo, "JPEG", quality=92))[: int(len(data) * share)]


def tiff_of(values: Callable[[Image.Image], np.ndarray]) -> Make:
    """A TIFF of one sheet of numbers, written by hand: Pillow writes few of the kinds there are."""

    def make(photo: Image.Image) -> bytes:
        array = np.ascontiguousarray(values(photo))
        height, width = array.shape[:2]
        n = array.shape[2] if array.ndim == 3 else 1
        kind = {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
        shorts = [(258, [array.dtype.itemsize * 8] * n), (339, [kind] * n)]
        data, extra, start = array.tobytes(), b"", 8 + 2 + 12 * 12 + 4
        entries = [(256, 4, 1, width), (257, 4, 1, height)]
        for tag, numbers in shorts:
            if n < 3:
                entries.append((tag, 3, n, numbers[0] if n == 1 else numbers[0] | numbers[1] << 16))
            else:
                entries.append((tag, 3, n, start + len(extra)))
                extra += struct.pack(f"<{n}H", *numbers)
        entries += [
            (259, 3, 1, 1),
            (262, 3, 1, 2 if n >= 3 else 1),
            (277, 3, 1, n),
            (278, 4, 1, height),
            (279, 4, 1, len(data)),
            (284, 3, 1, 1),
        ]
        entries.append((273, 4, 1, start + len(extra)))
        entries.append((266, 3, 1, 1))
        directory = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
        return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + directory + b"\0" * 4 + extra + data

    return make


def pnm(magic: bytes, photo: Image.Image) -> bytes:
    """A portable anymap as text, or with another number of grey levels than 255."""
    values = np.asarray(photo.convert("L"))
    header = b"%s\n# a comment\n%d %d\n" % (magic, photo.width, photo.height)
    if magic == b"P2":
        return header + b"255\n" + b"\n".join(b" ".join(b"%d" % value for value in row) for row in values) + b"\n"
    return header + b"65535\n" + (values.astype(">u2") * 257).tobytes()


def kinds() -> Iterator[tuple[str, str, Make]]:
    """Name, suffix and maker of every kind that can be written here."""
    yield from jpegs()
    yield from pngs()
    yield from tiffs()
    yield from others()


def jpegs() -> Iterator[tuple[str, str, Make]]:
    """JPEGs as they are and as they are called."""
    yield "JPEG baseline", "jpg", as_is("JPEG", quality=92)
    yield "JPEG progressive", "jpg", as_is("JPEG", quality=92, progressive=True)
    yield "JPEG 4:4:4", "jpg", as_is("JPEG", quality=92, subsampling=0)
    yield "JPEG 4:2:2", "jpg", as_is("JPEG", quality=92, subsampling=1)
    yield "JPEG restart markers", "jpg", as_is("JPEG", quality=92, restart_marker_rows=1)
    yield "JPEG restart blocks", "jpg", as_is("JPEG", quality=92, restart_marker_blocks=3)
    yield "JPEG optimised", "jpg", as_is("JPEG", quality=92, optimize=True)
    yield "JPEG grey", "jpg", as_is("JPEG", "L", quality=92)
    yield "JPEG CMYK", "jpg", as_is("JPEG", "CMYK", quality=95)
    yield "JPEG RGB", "jpg", as_is("JPEG", quality=92, keep_rgb=True)
    yield "JPEG YCbCr without JFIF", "jpg", lambda photo: (d := saved(photo, "JPEG", quality=92))[:2] + d[20:]
    yield "JPEG without EOI", "jpg", lambda photo: saved(photo, "JPEG", quality=92)[:-2]
    yield "JPEG with a trailer", "jpg", lambda photo: saved(photo, "JPEG", quality=92) + b"<html>" + bytes(5_000)
    yield "JPEG with a comment of 64 KB", "jpg", as_is("JPEG", quality=92, comment=b"x" * 65_000)
    yield "JPEG cut at 95%", "jpg", cut(0.95)
    yield "JPEG cut at half", "jpg", cut(0.5)
    for suffix in ("jpe", "jpeg", "jfif", "pjpeg", "JPG", "png", "heic", "avif", "webp", "gif", "mpo", "bin2", ""):
        yield f"JPEG called .{suffix}" if suffix else "JPEG without a suffix", suffix, as_is("JPEG", quality=91)
    yield "MPO", "mpo", animated("MPO")
    yield from ((f"JPEG EXIF {k}", "jpg", with_exif("JPEG", k)) for k in range(2, 9))
    for name, profile in profiles().items():
        yield f"JPEG {name}", "jpg", with_profile("JPEG", profile)
    yield "JPEG with a broken profile", "jpg", as_is("JPEG", icc_profile=b"no profile" * 20)


def profiles() -> dict[str, bytes]:
    """Colour profiles."""
    return {
        "sRGB profile": icc.profile(icc.SRGB, curve=icc.srgb_curve()),
        "Display P3": icc.profile(icc.DISPLAY_P3, curve=icc.srgb_curve()),
        "Adobe RGB": icc.profile(icc.ADOBE_RGB, 2.2),
        "ProPhoto RGB": icc.profile(icc.PROPHOTO, 1.8),
        "linear": icc.profile(icc.SRGB, 1.0),
        "swapped channels": icc.profile((icc.SRGB[1], icc.SRGB[2], icc.SRGB[0]), curve=icc.srgb_curve()),
    }


def pngs() -> Iterator[tuple[str, str, Make]]:
    """PNGs of every depth, and with everything that may stand beside the picture."""
    for mode in ("RGB", "L", "LA", "RGBA", "1"):
        yield f"PNG {mode}", "png", as_is("PNG", mode)
    yield "PNG palette", "png", lambda photo: saved(photo.quantize(256), "PNG")
    yield "PNG palette of 16", "png", lambda photo: saved(photo.quantize(16), "PNG", bits=4)
    yield "PNG palette with transparency", "png", lambda photo: saved(alpha(photo).quantize(256), "PNG")
    yield "PNG translucent", "png", lambda photo: saved(alpha(photo, 254), "PNG")
    for bits in (10, 12, 16):
        yield f"PNG {bits} bits in 16", "png", lambda photo, bits=bits: saved(grey16(photo, bits), "PNG")
    yield "PNG gamma 1", "png", png_with(chunk(b"gAMA", struct.pack(">I", 45_455)))
    yield "PNG EXIF 3", "png", with_exif("PNG", 3)
    yield "PNG EXIF 6", "png", with_exif("PNG", 6)
    yield "PNG EXIF 8", "png", with_exif("PNG", 8)
    yield "PNG text with a wrong CRC", "png", png_with(chunk(b"tEXt", b"Comment\0x", 1))
    yield "PNG time with a wrong CRC", "png", png_with(chunk(b"tIME", bytes(7), 1))
    yield "PNG compressed text of 3 MB", "png", png_with(chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(3_000_000))))
    yield "PNG unknown chunk", "png", png_with(chunk(b"prIv", b"x" * 999))
    yield "PNG with a trailer", "png", lambda photo: saved(photo, "PNG") + b"x" * 999
    yield "PNG uncompressed", "png", as_is("PNG", compress_level=0)
    yield "PNG animated", "png", animated("PNG")
    yield "PNG Display P3", "png", with_profile("PNG", profiles()["Display P3"])
    yield "PNG called .ico", "ico", as_is("PNG")
    yield "PNG called .jpg", "jpg", as_is("PNG", compress_level=3)


def tiffs() -> Iterator[tuple[str, str, Make]]:
    """TIFFs of many compressions and kinds of numbers."""
    for compression in ("raw", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma", "webp"):
        yield f"TIFF {compression.removeprefix('tiff_')}", "tif", as_is("TIFF", compression=compression)
    for compression in ("group3", "group4", "tiff_ccitt"):
        yield f"TIFF {compression}", "tif", as_is("TIFF", "1", compression=compression)
    for mode in ("L", "1", "CMYK", "LAB", "YCbCr", "RGBA", "LA", "P"):
        yield f"TIFF {mode}", "tiff", as_is("TIFF", mode)
    yield "BigTIFF", "tif", as_is("TIFF", big_tiff=True)
    yield "TIFF big-endian 16-bit grey", "tif", lambda photo: saved(grey16(photo, 16), "TIFF")
    yield "TIFF 12 bits in 16", "tif", lambda photo: saved(grey16(photo, 12), "TIFF")
    yield "TIFF of several pages", "tif", animated("TIFF")
    yield "TIFF EXIF 3", "tif", with_exif("TIFF", 3)
    yield "TIFF EXIF 6", "tif", with_exif("TIFF", 6)
    whole: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "uint16": lambda v: v.astype(np.uint16) * 257, "uint32": lambda v: v.astype(np.uint32) * 16_843_009, "int16": lambda v: v.astype(np.int16) * 100,
        "float32": lambda v: v.astype(np.float32) / 255, "float64": lambda v: v.astype(np.float64) / 255, "float16": lambda v: v.astype(np.float16) / 255,
        "float32 up to 255": lambda v: v.astype(np.float32),
    }  # fmt: skip
    for name, convert in whole.items():
        yield f"TIFF grey {name}", "tif", tiff_of(lambda photo, convert=convert: convert(np.asarray(photo.convert("L"))))
    for name in ("uint16", "float32"):
        yield f"TIFF RGB {name}", "tif", tiff_of(lambda photo, convert=whole[name]: convert(np.asarray(photo)))


def others() -> Iterator[tuple[str, str, Make]]:
    """WebP, GIF, bitmaps, and the formats that are seldom met."""
    yield "WebP", "webp", as_is("WEBP", quality=90)
    yield "WebP lossless", "webp", as_is("WEBP", lossless=True)
    yield "WebP with alpha", "webp", lambda photo: saved(alpha(photo), "WEBP", quality=90)
    yield "WebP animated", "webp", animated("WEBP", quality=90)
    yield "WebP Display P3", "webp", with_profile("WEBP", profiles()["Display P3"], quality=90)
    yield "WebP called .jpg", "jpg", as_is("WEBP", quality=89)
    yield "WebP EXIF 3", "webp", with_exif("WEBP", 3)
    yield "WebP EXIF 6", "webp", with_exif("WEBP", 6)
    yield "GIF", "gif", as_is("GIF")
    yield "GIF interlaced", "gif", as_is("GIF", interlace=1)
    yield "GIF animated", "gif", animated("GIF")
    for mode in ("RGB", "L", "1", "RGBA"):
        yield f"BMP {mode}", "bmp", as_is("BMP", mode)
    yield "BMP palette", "bmp", lambda photo: saved(photo.quantize(256), "BMP")
    yield "bitmap without a header", "dib", as_is("DIB")
    yield "JPEG 2000", "jp2", as_is("JPEG2000")
    yield "JPEG 2000 lossy", "jp2", as_is("JPEG2000", irreversible=True, quality_layers=[20])
    yield "JPEG 2000 codestream", "j2k", as_is("JPEG2000", no_jp2=True)
    yield "PPM", "ppm", as_is("PPM")
    yield "PGM", "pgm", as_is("PPM", "L")
    yield "PBM", "pbm", as_is("PPM", "1")
    yield "PGM as text", "pgm", lambda photo: pnm(b"P2", photo)
    yield "PGM of 16 bits", "pgm", lambda photo: pnm(b"P5", photo)
    yield "TGA", "tga", lambda photo: saved(photo, "TGA") + bytes(8) + b"TRUEVISION-XFILE.\0"
    yield "TGA packed", "tga", lambda photo: saved(photo, "TGA", compression="tga_rle") + bytes(8) + b"TRUEVISION-XFILE.\0"
    yield "TGA without its mark", "tga", lambda photo: saved(photo, "TGA").removesuffix(bytes(8) + b"TRUEVISION-XFILE.\0")
    yield "PCX", "pcx", as_is("PCX")
    yield "DDS", "dds", as_is("DDS")
    yield "ICO", "ico", lambda photo: saved(photo.resize((256, 256)), "ICO", sizes=[(256, 256)])
    yield "AVIF", "avif", as_is("AVIF", quality=85)
    yield "AVIF called .jpg", "jpg", as_is("AVIF", quality=84)
    yield "AVIF animated", "avif", animated("AVIF", quality=85)
    yield "HEIC", "heic", as_is("HEIF", quality=85)
    yield "HEIC called .jpg", "jpg", as_is("HEIF", quality=84)
    yield "JPEG XL", "jxl", as_is("JXL", quality=90)
    yield "JPEG XL lossless", "jxl", as_is("JXL", lossless=True)
    yield "SVG", "svg", lambda photo: f"<svg xmlns='http://www.w3.org/2000/svg' width='{photo.width}' height='9'/>".encode()
    yield "PSD", "psd", lambda photo: b"8BPS\0\1" + bytes(99)
    yield "SGI", "sgi", as_is("SGI")


def register_extras() -> None:
    """Let Pillow write what its plugins can write."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    with suppress(ImportError):
        import pillow_jxl  # noqa: F401 (registers itself)


def write_files(photos: list[Path], folder: Path) -> tuple[dict[str, tuple[int, str]], list[str]]:
    """Write all kinds of all photos; returns photo and kind by file name, and the kinds that nothing here can write."""
    made: dict[str, tuple[int, str]] = {}
    impossible = []
    for number, path in enumerate(photos):
        with Image.open(path) as opened:
            photo = opened.convert("RGB")
        photo.thumbnail((SIDE, SIDE))
        for place, (kind, suffix, make) in enumerate(kinds()):
            name = f"{number:03d}/{place:03d}{'.' if suffix else ''}{suffix}"
            try:
                data = make(photo)
            except (OSError, KeyError, ValueError, SystemError, RuntimeError) as error:
                impossible += [f"{kind} ({type(error).__name__})"] if number == 0 else []
                continue
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
            made[name] = (number, kind)
    return made, impossible


def outcome(run_dir: Path, made: dict[str, tuple[int, str]]) -> dict[str, Any]:
    """What became of every file."""
    groups: dict[str, int] = {}
    for table in ("manifest", "duplicates"):
        rows = pq.read_table(str(run_dir / table), columns=["key", "component_id"]).to_pylist()
        groups |= {row["key"]: row["component_id"] for row in rows}
    reasons = {row["key"]: row["reason"] for row in pq.read_table(str(run_dir / "embeddings" / "rejected")).to_pylist()}
    members: dict[int, list[str]] = defaultdict(list)
    for name, group in groups.items():
        members[group].append(name)
    main = {}
    for photo in {number for number, _ in made.values()}:
        sizes = Counter(groups[name] for name in groups if made[name][0] == photo)
        main[photo] = sizes.most_common(1)[0][0] if sizes else -1
    apart = Counter(made[name][1] for name, group in groups.items() if group != main[made[name][0]])
    return {
        "n_files": len(made),
        "n_accepted": len(groups),
        "n_rejected": len(reasons),
        "n_not_looked_at": len(made) - len(groups) - len(reasons),
        "n_groups": len(members),
        "n_groups_of_several_photos": sum(len({made[name][0] for name in names}) > 1 for names in members.values()),
        "apart": dict(apart),
        "rejected": dict(Counter(f"{made[name][1]}: {reason}" for name, reason in reasons.items())),
        "not_looked_at": dict(Counter(made[name][1] for name in made if name not in groups and name not in reasons)),
    }


def main() -> None:
    """Write the files, run, and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of photos")
    parser.add_argument("--n", type=int, default=5, help="photos to use")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--scratch", type=Path, help="folder for the files and the run, which then stay")
    options = parser.parse_args()
    photos = sorted(path for path in options.photos.rglob("*") if path.suffix[1:].lower() in IMAGE_SUFFIXES)[: options.n]
    register_extras()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = options.scratch or Path(temporary)
        (scratch / "files").mkdir(parents=True)
        made, impossible = write_files(photos, scratch / "files")
        command = [
            sys.executable,
            "-m",
            "dedup",
            "run",
            f"input.images={scratch / 'files'}",
            f"output.run_dir={scratch / 'run'}",
            "report.enabled=false",
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "NO_COLOR": "1"})
        found = outcome(scratch / "run", made)
    figures = {"machine": describe_machine(), "n_photos": len(photos), "n_kinds": len({kind for _, kind in made.values()})} | found
    print(json.dumps(figures, indent=1))
    print(f"kinds that nothing here writes: {', '.join(impossible) or 'none'}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
