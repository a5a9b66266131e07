"""Shards as bad as the web makes them, from a seed: broken images of every format, odd tars, odd captions."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rare_jpegs
from PIL import Image, ImageCms
from shard_data import detailed, encode

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
SUFFIX = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}


@dataclass
class Entry:
    """Members of one key."""

    key: str
    members: list[tuple[str, bytes]] = field(default_factory=list)  # suffix, bytes


def truncated(data):
    """The data cut at every twentieth of its length."""
    return [data[: len(data) * step // 20] for step in range(20)]


def flipped(rng, data, n):
    """The data with 1 to 8 bits turned over."""
    found = []
    for _ in range(n):
        part = bytearray(data)
        for place in rng.integers(0, 8 * len(data), int(rng.integers(1, 9))).tolist():
            part[place // 8] ^= 1 << place % 8
        found.append(bytes(part))
    return found


def png_header(width, height, depth=1, colour=0):
    """A PNG that claims a size and packs its rows of zeros tightly."""
    body = zlib.compress(bytes(min((1 + (width * depth + 7) // 8) * height, 15_000_000)), 9)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def chunk(kind, data, crc=None):
    """A chunk of a PNG; with a wrong CRC if one is given."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) if crc is None else crc)


def plain_tiff(values, further=()):
    """An uncompressed grey TIFF of any numbers, by hand; `further`: tags and values."""
    height, width = values.shape
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags = {256: width, 257: height, 258: 8 * values.itemsize, 259: 1, 262: 1, 277: 1, 278: height, 279: values.nbytes, 339: kind} | dict(
        further
    )
    tags[273] = 8 + 2 + 12 * (len(tags) + 1) + 4
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + table + bytes(4) + values.astype(values.dtype.newbyteorder("<")).tobytes()


def unwritten(rng):
    """Images that Pillow does not write: rare JPEGs, PNGs with broken or huge trifles, TIFFs of other numbers."""
    for name in ("LOSSLESS", "LOSSLESS_GREY", "ARITHMETIC", "ARITHMETIC_PROGRESSIVE", "TWELVE_BITS"):
        yield f"{name.lower()}.jpg", getattr(rare_jpegs, name)
    large = bytearray(rare_jpegs.LOSSLESS)
    at = large.index(b"\xff\xc3")
    large[at + 5 : at + 9] = struct.pack(">HH", 900, 1_200)
    yield "lossless_large.jpg", bytes(large)
    photo = encode(detailed(2, (64, 48)))
    frame = photo[photo.index(b"\xff\xc0") :][:19]
    yield "two_frames.jpg", photo[:2] + frame.replace(b"\xff\xc0", b"\xff\xc3") + photo[2:]
    yield "no_height.jpg", photo.replace(frame[:9], frame[:5] + b"\0\0" + frame[7:9])
    png = encode(detailed(3, (64, 48)), "PNG")
    bomb = zlib.compress(bytes(50_000_000), 9)
    trifles = {
        "crc": chunk(b"tEXt", b"a\0b", 1) + chunk(b"gAMA", b"\0\0\0\1", 2), "text_bomb": chunk(b"zTXt", b"a\0\0" + bomb),
        "profile_bomb": chunk(b"iCCP", b"a\0\0" + bomb), "animation": chunk(b"acTL", b"\xff" * 8) + chunk(b"fcTL", b"\xff" * 26),
    }  # fmt: skip
    for name, more in trifles.items():
        yield f"{name}.png", png[:33] + more + png[33:]
    yield "no_end.png", png[:-12]
    for kind in ("u4", "i4", "u2", "i2", "f4", "f8", "f2"):
        grey = rng.integers(0, 1_000, (40, 50)).astype(kind)
        yield f"{kind}.tif", plain_tiff(grey)
    yield "wraps.tif", plain_tiff(rng.integers(0, 2**32, (40, 50), dtype=np.uint32))
    yield "says_more.tif", plain_tiff(rng.integers(0, 900, (40, 50), dtype=np.uint16), {281: 4_095, 254: 1})
    ghost = Image.new("RGBA", (60, 40), (255, 255, 255, 0))
    ghost.paste((255, 255, 255, 200), (10, 10, 30, 30))
    yield "ghost.png", encode(ghost, "PNG")
    yield "pixel.gif", b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff" + b",\0\0\0\0\1\0\1\0\0\2\2D\1\0" * 500 + b";"
    yield "sizes.ico", encode(detailed(4, (64, 64)), "ICO", sizes=[(16, 16), (64, 64)], bitmap_format="bmp")
    for kind, suffix in (("JPEG2000", "jp2"), ("PPM", "ppm"), ("PCX", "pcx"), ("TGA", "tga"), ("DDS", "dds"), ("AVIF", "avif")):
        yield f"kind.{suffix}", encode(detailed(5, (40, 30)), kind)


def bombs():
    """Small files that claim, or hold, very many pixels."""
    plain = Image.new("L", (13_000, 13_000), 90)
    yield "bomb.png", png_header(30_000, 30_000)
    yield "bomb_max.png", png_header(2**31 - 1, 2**31 - 1)
    yield "below.png", encode(plain, "PNG", compress_level=1)  # just below the limit: decoded
    wide = Image.new("RGB", (65_500, 24), (10, 200, 90))
    yield "wide.jpg", encode(wide, quality=50)
    yield "tall.jpg", encode(wide.transpose(Image.Transpose.ROTATE_90), quality=50)
    square = bytearray(encode(Image.new("RGB", (16, 16)), quality=50))
    at = square.index(b"\xff\xc0")
    square[at + 5 : at + 9] = struct.pack(">HH", 65_500, 65_500)
    yield "bomb.jpg", bytes(square)
    yield "bomb.gif", b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0x80, 0, 0) + bytes(6) + b"," + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0) + b"\x02\x02D\x01\0;"  # fmt: skip
    tiff = bytearray(encode(Image.new("L", (8, 8)), "TIFF"))
    count = struct.unpack_from("<I", tiff, 4)[0]
    for number in range(struct.unpack_from("<H", tiff, count)[0]):
        tag, kind = struct.unpack_from("<HH", tiff, count + 2 + 12 * number)
        if tag in (256, 257):
            struct.pack_into("<HHII", tiff, count + 2 + 12 * number, tag, 4, 1, 100_000)
        del kind
    yield "bomb.tif", bytes(tiff)
    webp = bytearray(encode(Image.new("RGB", (16, 16)), "WEBP", lossless=True))
    at = webp.index(b"VP8L") + 9
    struct.pack_into("<I", webp, at, (16_382) | (16_382 << 14))
    yield "bomb.webp", bytes(webp)
    bmp = bytearray(encode(Image.new("L", (8, 8)), "BMP"))
    struct.pack_into("<ii", bmp, 18, 60_000, 60_000)
    yield "bomb.bmp", bytes(bmp)


def odd_images(rng):
    """Images that are unusual, whole or not."""
    picture = detailed(1)
    yield "zero.jpg", b""
    yield "one.png", encode(Image.new("RGB", (1, 1), "red"), "PNG")
    yield "line.png", encode(Image.new("RGB", (1, 3_000), "blue"), "PNG")
    for number, colour in enumerate(("black", "white", "#808080")):
        yield f"uniform{number}.jpg", encode(Image.new("RGB", (200, 150), colour))
    frames = [detailed(seed, (64, 64)) for seed in range(20, 24)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        yield f"animated.{SUFFIX[kind]}", encode(frames[0], kind, save_all=True, append_images=frames[1:])
    yield "cmyk.jpg", encode(picture.convert("CMYK"))
    yield "cmyk.tif", encode(picture.convert("CMYK"), "TIFF")
    deep = Image.fromarray(rng.integers(0, 65_536, (60, 70), dtype=np.uint16))
    yield "deep.png", encode(deep, "PNG")
    yield "deep.tif", encode(deep, "TIFF")
    yield "float.tif", encode(Image.fromarray(rng.normal(0, 1e30, (50, 50)).astype(np.float32)), "TIFF")
    nan = np.full((50, 50), np.nan, np.float32)
    yield "nan.tif", encode(Image.fromarray(nan), "TIFF")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, data in (("nonsense", rng.bytes(5_000)), ("cut", profile[: len(profile) // 2]), ("empty", b"")):
        yield f"icc_{name}.jpg", encode(picture, icc_profile=data)
        yield f"icc_{name}.png", encode(picture, "PNG", icc_profile=data)
    for name, data in (("nonsense", b"Exif\0\0" + rng.bytes(400)), ("loop", b"Exif\0\0MM\0*\0\0\0\x08" + b"\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x08" + b"\0\0\0\x08")):  # fmt: skip
        yield f"exif_{name}.jpg", encode(picture, exif=data)
    yield "alpha.png", encode(picture.convert("RGBA"), "PNG")
    yield "palette.png", encode(picture.convert("P"), "PNG", transparency=3)
    yield "bilevel.tif", encode(picture.convert("1"), "TIFF", compression="group4")
    for kind in FORMATS:
        for other in FORMATS:
            if kind != other:
                yield f"is{kind}.{SUFFIX[other]}", encode(picture.resize((40, 30)), kind)
    yield from unwritten(rng)
    for name, data in (("text", b"<html>404</html>"), ("svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), ("avif", b"\0\0\0\x1cftypavif" + rng.bytes(99)), ("noise", rng.bytes(3_000))):  # fmt: skip
        yield f"{name}.jpg", data
        yield f"{name}.png", data


def captions(rng):
    """Members that are captions, or should be."""
    texts = [
        b"",
        b"\0",
        b"a\0b",
        b"\xff\xfe\xfd",
        b"\xed\xa0\x80",
        "\ufeffwith a mark".encode(),
        "‮tfel ot thgir 😀".encode(),
        b"x" * 10_000_000,
        rng.bytes(4_000),
        b"\n\t ",
    ]
    for text in texts:
        yield [("txt", text)]
    deep = b"[" * 100_000 + b"]" * 100_000
    objects = [b"", b"{", b"[]", b"1", b"null", b'"text"', b'{"caption": NaN}', b'{"caption": {"a": 1}}', b'{"caption": ["a"]}', b'{"url": 1e999}', b'{"caption": "a\\u0000b\\ud800"}', b'{"a": ' + deep + b"}", deep, b'{"caption": "' + b"y" * 10_000_000 + b'"}', b"\xff{}", b'{"caption": "one", "caption": "two"}']  # fmt: skip
    for text in objects:
        yield [("json", text)]
    yield [
        ("txt", b"text wins"),
        ("json", b'{"caption": "json", "url": "javascript:alert(1)"}'),
        ("pyd", b"\x80\x04."),
        ("pickle", b"cos\nsystem\n(S'true'\ntR."),
    ]


def add(tar, name, data, **header):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in header.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def write_entries(path, entries, **options):
    with tarfile.open(path, "w", **options) as tar:
        for entry in entries:
            for suffix, data in entry.members:
                add(tar, f"{entry.key}.{suffix}", data)


def make(folder, seed=0, n=20_000, per_shard=1_500):
    """Write hostile shards with about n samples; returns their paths."""
    rng = np.random.default_rng(seed)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    images = []  # suffix, bytes
    for number, kind in enumerate(FORMATS):
        base = encode(detailed(100 + number, (72, 60)), kind, **({"quality": 80} if kind in ("JPEG", "WEBP") else {}))
        images += [(SUFFIX[kind], part) for part in truncated(base)]
        images += [(SUFFIX[kind], part) for part in flipped(rng, base, 150)]
    images += [(name.rpartition(".")[2], data) for name, data in [*odd_images(rng), *bombs()]]
    good = [encode(detailed(1_000 + seed, (80, 64))) for seed in range(400)]
    entries = []
    said = list(captions(rng))
    for members in said:
        entries.append(Entry("", [("jpg", good[int(rng.integers(len(good)))]), *members]))
    for suffix, data in images:
        entries.append(Entry("", [(suffix, data), ("txt", b"a caption")]))
    entries += [Entry("", [("txt", b"no image")]) for _ in range(20)]
    entries += [Entry("", [("psd", rng.bytes(50))]) for _ in range(5)]
    while len(entries) < n:
        kind = rng.random()
        base = good[int(rng.integers(len(good)))]
        if kind < 0.5:
            data = base
        elif kind < 0.75:
            data = encode(detailed(1_000 + int(rng.integers(len(good))), (80, 64)), quality=int(rng.integers(30, 95)))
        else:
            data = flipped(rng, base, 1)[0] if kind < 0.95 else base[: int(rng.integers(len(base)))]
        entries.append(Entry("", [("jpg", data), ("txt", b"caption %d" % rng.integers(50))]))
    order = rng.permutation(len(entries))
    entries = [entries[place] for place in order]
    for number, entry in enumerate(entries):
        entry.key = f"{number:07d}"
    paths = []
    forms = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)
    for number, start in enumerate(range(0, len(entries), per_shard)):
        path = folder / f"{number:04d}.tar"
        write_entries(path, entries[start : start + per_shard], format=forms[number % 3])
        paths.append(path)
    return paths + odd_tars(folder, rng, good)


def sparse_member(name, data, size):
    """A member in GNU's old form for files with holes: the data, then a hole up to the size."""
    info = tarfile.TarInfo(name)
    info.type, info.size = tarfile.GNUTYPE_SPARSE, len(data)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (0, len(data))
    header[482] = 0
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data + bytes(-len(data) % 512)


def odd_tars(folder, rng, good):
    """Tars that are unusual or broken, of a few samples each."""
    few = [Entry(f"s{number}", [("jpg", good[number]), ("txt", b"c")]) for number in range(12)]

    def packed(entries, **options):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", **options) as tar:
            for entry in entries:
                for suffix, data in entry.members:
                    add(tar, f"{entry.key}.{suffix}", data)
        return buffer.getvalue()

    whole = packed(few)
    made = {
        "gzip.tar": gzip.compress(whole), "bzip2.tar.bz2": bz2.compress(whole), "xz.tar.xz": lzma.compress(whole),
        "put_together.tar": whole + packed([Entry(f"t{number}", [("jpg", good[20 + number])]) for number in range(5)]),
        "half_block.tar": whole[: len(whole) // 2 // 512 * 512 + 200], "no_end.tar": whole.rstrip(b"\0"), "empty.tar": bytes(10_240), "nothing.tar": b"",
        "text.tar": b"<html>not found</html>", "cut.tar.gz": gzip.compress(whole)[:-3_000], "noise.tar": rng.bytes(20_000),
        "flipped.tar": flipped(rng, whole, 1)[0], "header.tar": whole.replace(b"s5.jpg", b"s5\xff\xffpg"),
    }  # fmt: skip
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for suffix in ("txt", "jpg"):  # members of a key apart from each other
            for number in range(4):
                add(tar, f"apart{number}.{suffix}", good[30 + number] if suffix == "jpg" else b"c")
        for name in ("/absolute/a.jpg", "../outside/b.jpg", "./here/c.jpg", "a/../../d.jpg"):
            add(tar, name, good[40])
        for _ in range(3):
            add(tar, "twice.jpg", good[41])
        add(tar, "twice.txt", b"c")
        for kind, name in ((tarfile.SYMTYPE, "link.jpg"), (tarfile.LNKTYPE, "hard.jpg"), (tarfile.DIRTYPE, "folder.jpg"), (tarfile.FIFOTYPE, "pipe.jpg"), (tarfile.CHRTYPE, "device.jpg")):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        add(tar, "long/" * 80 + "name.jpg", good[42])
        add(tar, "pax.jpg", good[43], pax_headers={"comment": "x" * 5_000, "mtime": "1.5"})
        table = b"1\n0\n%d\n" % len(good[47])
        sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "sparse_pax.jpg", "GNU.sparse.realsize": str(len(good[47]))}  # fmt: skip
        add(tar, "GNUSparseFile.0/sparse_pax.jpg", table.ljust(512, b"\0") + good[47], pax_headers=sparse)
        add(tar, "no_suffix", good[44])
        add(tar, ".hidden.jpg", good[45])
        add(tar, "__meta__.json", b"{}")
        add(tar, "caf\udce9.jpg", good[46])
    made["odd.tar"] = buffer.getvalue()
    holes = [("whole.jpg", good[48], len(good[48])), ("hole.jpg", good[49], len(good[49]) + 5_000), ("all_hole.png", b"", 70_000), ("endless.jpg", good[50], 8**11 - 1)]  # fmt: skip
    made["sparse.tar"] = b"".join(sparse_member(*hole) for hole in holes) + whole
    for name, data in made.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in made]
