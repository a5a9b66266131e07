"""The process that decodes: what it can't do, what becomes of images that crash it, and that all others come back as they were."""

import contextlib
import dataclasses
import errno
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from patience import HANGS_S, wait_for
from PIL import Image
from shard_data import detailed, encode

import dedup
from dedup.errors import SampleError
from dedup.storage.images.decode import decode_image
from dedup.storage.images.isolated import Decoder, decode_each_isolated, decode_isolated, describe, where_decoded
from dedup.storage.images.jail import Jail

MAX = 10**6
linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's jail is Linux's")


@pytest.fixture(scope="module")
def shared():
    with Decoder("misbehaving:misbehave", memory_per_pixel=1, cpu_s=1.0) as decoder:
        yield decoder


def outcome(decoder, text, max_pixels=MAX):
    """The width of the picture, or the reason and detail."""
    try:
        return decoder.decode(text.encode(), max_pixels=max_pixels).width
    except SampleError as error:
        return error.reason, error.detail


def tried(decoder, what):
    """What became of an attempt to break out."""
    reason, detail = outcome(decoder, f"try {what}")
    assert reason == "undecodable_image", detail
    return detail


def jailed(decoder):
    jail = decoder.jail(max_pixels=MAX)
    if jail is None or not jail.has_filter:
        pytest.skip("this kernel or container has no seccomp")
    return jail


def same(a, b):
    for field in dataclasses.fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        assert type(x) is type(y)
        if isinstance(x, np.ndarray):
            np.testing.assert_array_equal(x, y)
            assert x.dtype == y.dtype
            assert y.flags.c_contiguous
            assert y.flags.writeable
        else:
            assert x == y


def pictures():
    """Encoded pictures of each format, mode and size."""
    base = detailed(3, (300, 201))
    found = [encode(base, quality=85), encode(base, quality=85)[:9_000], b"", b"no image", encode(base, "PNG")[:500]]
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"):
        for kind, options in (("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True}), ("GIF", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "tiff_adobe_deflate"}), ("JPEG", {"progressive": True})):  # fmt: skip
            file = io.BytesIO()
            try:
                (base.convert("L").convert(mode) if mode in ("I;16", "I", "F", "1") else base.convert(mode)).save(file, kind, **options)
            except (OSError, ValueError):
                continue
            found.append(file.getvalue())
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        file = io.BytesIO()
        base.save(file, kind, exif=exif)
        found.append(file.getvalue())
    file = io.BytesIO()
    frames = [detailed(number, (80, 60)) for number in range(3)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return [*found, file.getvalue()]


@pytest.mark.parametrize("min_side", [None, 64])
def test_what_comes_back_is_what_was_decoded(min_side):
    wanted = []
    images = pictures()
    for data in images:
        try:
            wanted.append(decode_image(data, max_pixels=MAX, min_side=min_side))
        except SampleError as error:
            wanted.append(error)
    assert sum(isinstance(image, SampleError) for image in wanted) >= 4
    with Decoder() as decoder:
        assert decoder.jail(max_pixels=MAX) is not None, decoder.trouble
        found = list(decoder.decode_each(images, max_pixels=MAX, min_side=min_side))
    for mine, theirs in zip(wanted, found, strict=True):
        if isinstance(mine, SampleError):
            assert (mine.reason, mine.detail) == (theirs.reason, theirs.detail)
        else:
            same(mine, theirs)


def test_too_many_pixels_and_no_images():
    data = encode(detailed(1, (200, 100)))
    with pytest.raises(SampleError) as error:
        decode_isolated(data, max_pixels=19_999)
    assert error.value.reason == "too_many_pixels"
    assert decode_isolated(data, max_pixels=20_000).pixels.shape == (100, 200, 3)
    assert list(decode_each_isolated([], max_pixels=MAX)) == []


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("abort", "ended by signal SIGABRT"),
        ("null", "ended by signal SIGSEGV"),
        ("exit", "ended with exit code 7"),
        ("raise", "raised KeyError: 'what'"),
        ("compute", "took more than 1 s of processor time"),
        ("garbage", "answer that is none"),
        ("reason", "answer that is none"),
        ("shape", "answer that is none"),
        ("box", "answer that is none"),
        ("huge", "answer that is none"),
        ("object", "answer that is none"),
    ],
)
def test_only_the_image_that_ends_it_is_lost(shared, what, said):
    texts = ["one", "three", "bad one", what, "fifteen letters", "three"]
    found = list(shared.decode_each([text.encode() for text in texts], max_pixels=MAX))
    assert [image.width for image in found if not isinstance(image, SampleError)] == [3, 5, 15, 5]
    assert [error.reason for error in found if isinstance(error, SampleError)] == ["undecodable_image", "decoder_crashed"]
    assert said in found[3].detail
    assert f"image of {len(what)} bytes" in found[3].detail


@linux
def test_memory_without_bound(shared):
    reason, detail = outcome(shared, "memory")
    assert (reason, "of memory" in detail) == ("decoder_crashed", True), detail
    assert outcome(shared, "fine") == 4


def test_one_that_waits_for_ever():
    with Decoder("misbehaving:misbehave", wall_s=0.5) as decoder:
        reason, detail = outcome(decoder, "sleep")
        assert (reason, "took more than 0.5 s" in detail) == ("decoder_crashed", True)
        assert outcome(decoder, "fine") == 4


def test_several_crashes_in_one_batch(shared):
    texts = ["abort", "a", "null", "exit", "b", "abort"]
    found = list(shared.decode_each([text.encode() for text in texts], max_pixels=MAX))
    assert [getattr(image, "reason", "") for image in found] == ["decoder_crashed", "", "decoder_crashed", "decoder_crashed", "", "decoder_crashed"]  # fmt: skip


def test_a_process_that_others_end_costs_no_image(shared):
    for _ in range(2):
        pid = int(tried(shared, "pid"))
        os.kill(pid, signal.SIGKILL)
        assert outcome(shared, "fine") == 4
        assert int(tried(shared, "pid")) != pid


def test_an_iterator_that_is_left_early(shared):
    pid = tried(shared, "pid")
    outcomes = shared.decode_each([b"one", b"four"], max_pixels=MAX)
    assert [next(outcomes).width, next(outcomes).width] == [3, 4]
    outcomes.close()
    assert tried(shared, "pid") == pid  # nothing was left to come
    outcomes = shared.decode_each([b"one", b"four", b"seventeen"], max_pixels=MAX)
    assert next(outcomes).width == 3
    outcomes.close()
    assert outcome(shared, "four") == 4


@linux
def test_no_network(shared):
    jailed(shared)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert tried(shared, f"connect 127.0.0.1:{server.getsockname()[1]}") == f"errno {errno.EPERM}"
        assert tried(shared, "unix") == f"errno {errno.EPERM}"
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


@linux
def test_no_files(shared, tmp_path):
    jailed(shared)
    kept = tmp_path / "kept"
    kept.write_text("aws_secret_access_key")
    kept.chmod(0o600)
    refused = f"errno {errno.EPERM}"
    for what in ("read", "append", "remove", "rename", "chmod", "write"):
        assert tried(shared, f"{what} {kept}") == refused, what
    for what in ("write", "mkdir"):
        assert tried(shared, f"{what} {tmp_path / 'new'}") == refused, what
    assert tried(shared, f"list {tmp_path}") == refused
    assert tried(shared, f"read /proc/{os.getpid()}/environ") == refused
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == ("aws_secret_access_key", 0o600)


@linux
def test_no_programs_and_no_other_processes(shared, tmp_path):
    jailed(shared)
    with subprocess.Popen(["/bin/sleep", "100"]) as bystander:
        refused = f"errno {errno.EPERM}"
        for what in (f"run touch {tmp_path}/ran", f"exec touch {tmp_path}/ran", "fork", f"kill {bystander.pid}", f"ptrace {bystander.pid}", f"spy {bystander.pid}", "code"):  # fmt: skip
            assert tried(shared, what) == refused, what
        assert outcome(shared, "try limits")[1] != "done"
        assert bystander.poll() is None
        bystander.kill()
    assert not list(tmp_path.iterdir())


def test_no_credentials_and_no_descriptors(tmp_path):
    """In a process of its own, whose environment and files are those of a user."""
    code = (
        "import os, sys\n"
        "from dedup.errors import SampleError\n"
        "from dedup.storage.images.isolated import Decoder\n"
        "file = open('secret', 'w')\n"
        "os.set_inheritable(file.fileno(), True)\n"
        "with Decoder('misbehaving:misbehave') as decoder:\n"
        "    for what in (b'try environment', b'try descriptors'):\n"
        "        try:\n"
        "            decoder.decode(what, max_pixels=100)\n"
        "        except SampleError as error:\n"
        "            print(error.detail)\n"
    )
    secrets = {"AWS_SECRET_ACCESS_KEY": "x", "HF_TOKEN": "x", "GITHUB_TOKEN": "x", "SSH_AUTH_SOCK": "x", "LANG": "C.UTF-8"}
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {**os.environ, **secrets, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    names, descriptors = done.stdout.splitlines()
    assert not {"AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "GITHUB_TOKEN", "SSH_AUTH_SOCK", "HOME", "USER"} & set(names.split())
    assert {"PATH", "LANG"} <= set(names.split())
    assert descriptors == "0 1 2"


@linux
def test_it_ends_with_its_parent(tmp_path):
    """SIGKILL leaves no time to say goodbye; the child must not even be waiting for its parent."""
    code = (
        "import sys, threading\n"
        "from dedup.errors import SampleError\n"
        "from dedup.storage.images.isolated import Decoder\n"
        "decoder = Decoder('misbehaving:misbehave')\n"
        "try:\n"
        "    decoder.decode(b'try pid', max_pixels=100)\n"
        "except SampleError as error:\n"
        "    print(error.detail, flush=True)\n"
        "decoder.decode(b'sleep', max_pixels=100)\n"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as parent:
        pid = int(parent.stdout.readline())
        assert alive(pid)
        time.sleep(0.2)
        parent.kill()
    wait_for(lambda: not alive(pid), "the child is gone")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_threads_that_come_and_go():
    """A thread that ends must not take the process with it that it asked for."""
    data = encode(detailed(5, (90, 60)))
    for _ in range(3):
        with ThreadPoolExecutor(3) as pool:
            assert [image.width for image in pool.map(lambda data: decode_isolated(data, max_pixels=MAX), [data] * 12)] == [90] * 12
    with Decoder("misbehaving:misbehave") as decoder:
        pids = []
        for _ in range(3):
            thread = threading.Thread(target=lambda: pids.append(outcome(decoder, "try pid")[1]))
            thread.start()
            thread.join(HANGS_S)
        assert len(set(pids)) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_starts_its_own(tmp_path):
    """As the Python workers of Spark are forked from a daemon."""
    code = (
        "import os, sys\n"
        "from dedup.storage.images.isolated import decode_isolated\n"
        "data = open(sys.argv[1], 'rb').read()\n"
        "assert decode_isolated(data, max_pixels=10**6).width == 90\n"
        "pid = os.fork()\n"
        "assert decode_isolated(data, max_pixels=10**6).width == 90\n"
        "assert decode_isolated(data, max_pixels=10**6).width == 90\n"
        "if pid:\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0\n"
    )
    (tmp_path / "a.jpg").write_bytes(encode(detailed(5, (90, 60))))
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.jpg")], check=True, timeout=HANGS_S)


def test_a_package_that_is_shipped_as_a_zip(tmp_path):
    """As Spark ships what `--py-files` names: the process must import from where its parent did."""
    root = Path(dedup.__file__).parent
    with zipfile.ZipFile(tmp_path / "shipped.zip", "w") as archive:
        for path in root.rglob("*.py"):
            archive.write(path, path.relative_to(root.parent))
    code = (
        "import sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from dedup.storage.images import isolated\n"
        "print(isolated.__file__)\n"
        "print(isolated.where_decoded())\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code, str(tmp_path / "shipped.zip")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True, text=True)
    where, said = done.stdout.splitlines()
    assert where.startswith(str(tmp_path))
    assert said.startswith("own process")


def test_where_no_process_can_be_started(tmp_path):
    code = (
        "import sys\n"
        "from dedup.storage.images.isolated import decode_isolated, where_decoded, why_not_isolated\n"
        "sys.executable = '/no/such/python'\n"
        "print(decode_isolated(open(sys.argv[1], 'rb').read(), max_pixels=10**6).width)\n"
        "print(where_decoded())\n"
        "print(why_not_isolated())\n"
    )
    (tmp_path / "a.jpg").write_bytes(encode(detailed(5, (90, 60))))
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.jpg")], check=True, capture_output=True, text=True)
    width, where, why = done.stdout.splitlines()
    assert (width, where) == ("90", f"in the same process: {why}")
    assert "/no/such/python" in why


@linux
def test_what_is_said():
    assert where_decoded(MAX).startswith("own process, ")
    assert describe(Jail()).endswith("not available here: Landlock (no files), seccomp (no network, no other programs), a limit on memory")


def test_every_format_is_decoded_as_it_would_be_here():
    """Some import what they need with their first image, or start threads, neither of which a jailed process may do as it likes."""
    picture = detailed(3, (320, 240))
    images = {kind: encode(picture, kind) for kind in ("AVIF", "JPEG2000", "ICO", "PPM", "PCX", "DDS", "TGA", "WEBP", "TIFF")}
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
        images["HEIF"] = encode(picture, "HEIF")
    with contextlib.suppress(ImportError):
        import pillow_jxl  # noqa: F401 (registers itself)

        images["JXL"] = encode(picture, "JXL")
    images["TGA"] += bytes(8) + b"TRUEVISION-XFILE.\0"
    for kind, data in images.items():
        here, there = decode_image(data, max_pixels=MAX), decode_isolated(data, max_pixels=MAX)
        assert np.array_equal(here.pixels, there.pixels), kind
