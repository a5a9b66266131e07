"""Mutations of tars, images and captions, drawn by hypothesis, for as long as is asked for.

python tests/fuzzing.py images --seconds 600 --seed 0      # reproduces, and shrinks, what `make test` reports
"""

import argparse
import base64
import bz2
import faulthandler
import gzip
import io
import json
import lzma
import sys
import tarfile
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from hostile import add, odd_images, sparse_member
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from shard_data import detailed, encode

from dedup.encoders.dct import MIN_SIDE, DctEncoder
from dedup.errors import SampleError
from dedup.numerics.image.descriptor import DIM, describe_grids
from dedup.schemas import REJECT_REASONS
from dedup.stages.embed.prepare import Preparation, RejectedSample
from dedup.storage.images.decode import decode_image
from dedup.storage.images.frames import MAX_COUNTED
from dedup.storage.input import captions
from dedup.storage.input.samples import RawSample
from dedup.storage.input.shards import read_shard

MAX_PIXELS = 4_000_000
SLOWEST_S = 10.0  # of one case, on a busy machine
INTERESTING = [b"\0", b"\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x80", b"\0\1", b"\1\0", b"\xff\xd8", b"\xff\xd9", b"IEND", b"0" * 8, b"7" * 12, b"\x80" + b"\xff" * 11]  # fmt: skip

places = st.integers(0, 2**32)
mutation = st.one_of(
    st.tuples(st.just("flip"), places, st.integers(0, 7)),
    st.tuples(st.just("set"), places, st.sampled_from(INTERESTING)),
    st.tuples(st.just("insert"), places, st.binary(min_size=1, max_size=40)),
    st.tuples(st.just("delete"), places, st.integers(1, 700)),
    st.tuples(st.just("repeat"), places, st.integers(1, 1_100)),
    st.tuples(st.just("cut"), places, st.just(0)),
    st.tuples(st.just("splice"), places, st.integers(0, 200)),
)


def mutated(bases, number, mutations):
    """A base after some changes; a splice goes on with another base."""
    data = bytearray(bases[number % len(bases)])
    for kind, place, what in mutations:
        at = place % max(1, len(data))
        if kind == "flip" and data:
            data[at] ^= 1 << what
        elif kind == "set":
            data[at : at + len(what)] = what
        elif kind == "insert":
            data[at:at] = what
        elif kind == "delete":
            del data[at : at + what]
        elif kind == "repeat":
            data[at:at] = data[at : at + what]
        elif kind == "cut":
            del data[at:]
        elif kind == "splice":
            other = bases[what % len(bases)]
            data[at:] = other[place % max(1, len(other)) :]
    return bytes(data)


def image_bases():
    """Small images of every format and most of their kinds."""
    picture = detailed(5, (40, 32))
    grey, alpha, palette = picture.convert("L"), picture.convert("RGBA"), picture.convert("P")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    frames = {"save_all": True, "append_images": [detailed(6, (40, 32))]}
    made = [
        *((image, "JPEG", options) for image in (picture, grey, picture.convert("CMYK")) for options in ({}, {"progressive": True}, {"subsampling": 0, "restart_marker_rows": 1})),
        *((image, "PNG", options) for image in (picture, grey, alpha, palette, deep, picture.convert("1"), grey.convert("LA")) for options in ({}, frames)),
        *((image, "WEBP", options) for image in (picture, alpha) for options in ({}, {"lossless": True}, frames)),
        *((image, "GIF", options) for image in (palette, grey) for options in ({}, frames)),
        *((image, "BMP", {}) for image in (picture, grey, palette, picture.convert("1"))),
        *((image, "TIFF", {"compression": name}) for image in (picture, grey) for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
        *((image, "TIFF", options) for image in (alpha, palette, deep, picture.convert("CMYK"), Image.fromarray(np.asarray(grey) / 7.0)) for options in ({}, frames)),
        *((picture.convert("1"), "TIFF", {"compression": name}) for name in ("group3", "group4")),
    ]  # fmt: skip
    odd = [data for name, data in odd_images(np.random.default_rng(0)) if len(data) < 60_000]
    return [encode(image, kind, **options) for image, kind, options in made] + odd


def tar_bases():
    """Small tars in each format and packing, with what tars may hold."""
    image = encode(detailed(5, (32, 24)), quality=40)
    found = []
    for number, form in enumerate((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form, bufsize=2_048) as tar:
            for key in ("a", "b", "folder/c", "é" * 20):
                add(tar, f"{key}.jpg", image)
                add(tar, f"{key}.txt", b"caption")
                add(tar, f"{key}.json", b'{"caption": "x", "url": "y"}')
            if number:
                add(tar, "long/" * 30 + "name.png", image, **({"pax_headers": {"comment": "x" * 600}} if number == 2 else {}))
            link = tarfile.TarInfo("link.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "a.jpg"
            tar.addfile(link)
        found.append(buffer.getvalue())
    found.append(sparse_member("s.jpg", image, len(image) + 900) + found[0])
    found.append(found[1] + found[2])
    return (
        found
        + [pack(found[0]) for pack in (gzip.compress, bz2.compress, lzma.compress)]
        + [gzip.compress(found[0]) + gzip.compress(found[2])]
    )


header_lie = st.tuples(
    st.integers(0, 60),
    st.sampled_from([(0, 100), (100, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (345, 155), (386, 24), (482, 13)]),
    st.one_of(st.binary(max_size=16), st.sampled_from([*INTERESTING, b"S", b"L", b"K", b"x", b"g", b"5", b"2", b"00000000000\0", b"77777777777\0", b"\x80" + bytes(7) + b"\x7f\xff\xff\xff", b"../../a.jpg", b"a.jpg\0"])),
)  # fmt: skip


def with_lies(data, lies):
    """Headers with another field, their checksums right."""
    changed = bytearray(data)
    for block, (start, size), what in lies:
        at = 512 * block
        if at + 512 <= len(changed):
            header = changed[at : at + 512]
            header[start : start + min(size, len(what))] = what[:size]
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
            changed[at : at + 512] = header
    return bytes(changed)


class Images:
    """Any bytes give pixels of the shape that is promised and a unit vector, or a reason."""

    prepare = Preparation(DctEncoder(), MAX_PIXELS, finds_inner=True, keeps_thumbnails=True)

    bases = image_bases()
    cases = st.builds(
        lambda number, mutations: mutated(Images.bases, number, mutations), st.integers(0, 10_000), st.lists(mutation, max_size=8)
    )

    def check(self, data):
        for min_side in (None, MIN_SIDE):
            try:
                found = decode_image(data, max_pixels=MAX_PIXELS, min_side=min_side)
            except SampleError as error:
                assert error.reason in REJECT_REASONS, error
                assert error.detail
                continue
            height, width, depth = found.pixels.shape
            assert found.pixels.dtype == np.uint8
            assert depth == 3
            assert found.pixels.flags.c_contiguous
            n_cells = 1 if found.n_frames == 1 else 2  # to a side, of a sheet of frames
            assert 1 <= height <= n_cells * found.height
            assert 1 <= width <= n_cells * found.width
            assert found.width * found.height <= MAX_PIXELS
            assert 1 <= found.n_frames <= MAX_COUNTED
            left, top, right, bottom = found.box
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
        prepared = self.prepare((0, RawSample("k", "s.tar", data, n_bytes=len(data))))
        if isinstance(prepared, RejectedSample):
            assert prepared.error.reason in REJECT_REASONS
            return
        assert Image.open(io.BytesIO(prepared.thumbnail)).width
        for grid in (prepared.grid, *prepared.inner):
            vector = describe_grids(grid[None])[0]
            assert vector.shape == (DIM,)
            assert np.isfinite(vector).all()
            assert abs(float(np.linalg.norm(vector)) - 1.0) < 1e-3 or not vector.any()


class Tars:
    """Any bytes end as ok, truncated or unreadable, and each sample has its image, where it says, or a reason."""

    bases = tar_bases()
    cases = st.builds(
        lambda number, lies, mutations: mutated(
            [with_lies(base, lies) for base in Tars.bases[number % len(Tars.bases) :][:2]], 0, mutations
        ),
        st.integers(0, 10_000),
        st.lists(header_lie, max_size=3),
        st.lists(mutation, max_size=4),
    )

    def __init__(self):
        self.path = Path(tempfile.mkdtemp(prefix="fuzzing-")) / "a.tar"

    def check(self, data):
        self.path.write_bytes(data)
        reader = read_shard(str(self.path), carry=["similarity", "caption"], max_image_bytes=1_000_000)
        seen = set()
        for sample in reader:
            assert sample.key.encode() or sample.error is not None
            assert (sample.image is None) == (sample.error is not None)
            if sample.error is not None:
                assert sample.error.reason in REJECT_REASONS
                continue
            assert (sample.key, sample.member) not in seen
            seen.add((sample.key, sample.member))
            assert sample.n_bytes == len(sample.image) <= 1_000_000
            if sample.byte_offset is not None:
                assert data[sample.byte_offset : sample.byte_offset + sample.n_bytes] == sample.image
            for text in (sample.caption, sample.url):
                assert text is None or ("\0" not in text and text.encode().decode() == text)
        assert reader.status in ("ok", "truncated", "unreadable")
        assert reader.status == "ok" or reader.error
        assert reader.is_reachable


jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.integers(10**300, 10**310),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["caption", "url", "TEXT", "similarity", "a"]), inner, max_size=4)
    ),
    max_leaves=12,
)


class Captions:
    """Any bytes give texts that Arrow takes, numbers of the right kind, or nothing."""

    bases = (b'{"caption": "a \\ud800 b\\u0000", "url": 1e999, "similarity": NaN}', b"\xef\xbb\xbfcaption", b"[" * 3_000 + b"]" * 3_000, b'{"LICENSE": ' + b"[" * 900 + b"]" * 900 + b"}", b'{"similarity": ' + b"9" * 5_000 + b"}")  # fmt: skip
    cases = st.one_of(
        st.binary(max_size=300),
        st.builds(lambda number, mutations: mutated(Captions.bases, number, mutations), st.integers(0, 100), st.lists(mutation, max_size=6)),
        jsons.map(lambda value: json.dumps(value).encode()),
        st.dictionaries(st.sampled_from(["caption", "url", "similarity", "punsafe", "LICENSE", "original_width"]), jsons).map(lambda value: json.dumps(value).encode()),
    )  # fmt: skip

    def check(self, data):
        carry = ["similarity", "original_width", "LICENSE"]
        texts = captions.SampleTexts("0")
        texts.add("json", data)
        texts.add("txt", data)
        (sample,) = captions.TextReader(carry).complete([(RawSample("0", "a.tar"), texts)])
        carried = sample.carried
        assert carried["similarity"] is None or isinstance(carried["similarity"], float)
        assert carried["original_width"] is None or -(2**63) <= carried["original_width"] < 2**63
        for text in (*sample.captions, sample.url, carried["LICENSE"]):
            assert text is None or ("\0" not in text and len(text.encode()) <= 6 * len(data) + 6)


TARGETS = {"images": Images, "tars": Tars, "captions": Captions}


def main():
    """Fuzz one target; prints one JSON object, or what failed with the seed that finds it again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="of processor time: no case is slow because others keep the machine busy"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first hundred cases; each further hundred has the next")
    parser.add_argument("--last", default="", help="file that holds the case under way, for one that ends the interpreter")
    args = parser.parse_args()
    faulthandler.enable()
    warnings.simplefilter("ignore")
    target, n_cases, slowest, number = TARGETS[args.target](), 0, 0.0, args.seed
    started = time.process_time()
    last = open(args.last, "wb", buffering=0) if args.last else None  # noqa: SIM115 (until the end)

    def one(data):
        nonlocal n_cases, slowest
        if last is not None:
            last.seek(0)
            last.truncate()
            last.write(b"%d %s" % (number, base64.b64encode(data)))
        faulthandler.dump_traceback_later(3 * SLOWEST_S, exit=True)  # one that never ends
        before = time.process_time()
        target.check(data)
        slowest, n_cases = max(slowest, time.process_time() - before), n_cases + 1
        assert slowest < SLOWEST_S

    while time.process_time() - started < args.seconds:
        options = settings(max_examples=100, database=None, deadline=None, print_blob=False, suppress_health_check=list(HealthCheck))
        try:
            seed(number)(options(given(target.cases)(one)))()
        except BaseException:
            print(f"python tests/fuzzing.py {args.target} --seed {number}", file=sys.stderr)
            raise
        number += 1
    # not ru_maxrss, which begins with that of the process that started this one
    peak = 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps({"cases": n_cases, "next_seed": number, "slowest_s": round(slowest, 3), "peak_gb": round(peak / 1e9, 2)}))


if __name__ == "__main__":
    main()
