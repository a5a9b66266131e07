"""Decoders that do what no decoder should, for the process that decodes: the first word of the image says what."""

import ctypes
import encodings.idna  # noqa: F401 (as all here: in the jail, nothing can be imported any more)
import errno
import mmap
import os
import resource
import signal
import socket
import subprocess
import time
from pathlib import Path

import numpy as np

from dedup.errors import SampleError
from dedup.storage.images.decode import DecodedImage

HELD = []


def attempts(what):
    """What a process that was taken over would try; the text it gets hold of."""
    kind, _, argument = what.partition(" ")
    if kind == "connect":
        host, port = argument.split(":")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(b"secret")
    elif kind == "unix":
        socket.socket(socket.AF_UNIX)
    elif kind == "write":
        Path(argument).write_text("here")
    elif kind == "append":
        with open(argument, "a") as file:
            file.write("here")
    elif kind == "read":
        return Path(argument).read_text()
    elif kind == "list":
        return " ".join(os.listdir(argument))
    elif kind == "remove":
        os.unlink(argument)
    elif kind == "rename":
        os.rename(argument, argument + ".moved")
    elif kind == "mkdir":
        os.mkdir(argument)
    elif kind == "chmod":
        os.chmod(argument, 0o777)
    elif kind == "run":
        subprocess.run(["/bin/sh", "-c", argument], check=True)
    elif kind == "exec":
        os.execv("/bin/sh", ["/bin/sh", "-c", argument])
    elif kind == "fork":
        if os.fork() == 0:
            os._exit(0)
    elif kind == "kill":
        os.kill(int(argument), signal.SIGTERM)
    elif kind == "ptrace":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.ptrace(16, int(argument), None, None) < 0:
            raise OSError(ctypes.get_errno(), "ptrace")
    elif kind == "spy":
        libc, here = ctypes.CDLL(None, use_errno=True), (ctypes.c_size_t * 2)()
        if libc.process_vm_readv(int(argument), here, 0, here, 0, 0) < 0:
            raise OSError(ctypes.get_errno(), "process_vm_readv")
    elif kind == "limits":
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    elif kind == "code":
        mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    elif kind == "environment":
        return " ".join(sorted(os.environ))
    elif kind == "descriptors":
        found = []
        for number in range(256):
            try:
                os.lseek(number, 0, os.SEEK_CUR)
            except OSError as error:
                if error.errno == errno.EBADF:
                    continue
            found.append(str(number))
        return " ".join(found)
    elif kind == "pid":
        return str(os.getpid())
    return "done"


def misbehave(data, *, max_pixels, min_side=None):
    """Decodes to one grey pixel for each byte, or does what the bytes say."""
    what = data.decode()
    if what.startswith("bad"):
        raise SampleError("undecodable_image", what)
    if what == "abort":
        os.abort()
    elif what == "null":
        ctypes.string_at(0)
    elif what == "exit":
        os._exit(7)
    elif what == "raise":
        raise KeyError("what")
    elif what == "compute":
        while True:
            pass
    elif what == "sleep":
        time.sleep(10_000)
    elif what == "memory":
        while True:
            HELD.append(np.empty(64 << 20, np.uint8))  # unwritten: only the address space grows
    elif what == "garbage":
        os.write(0, b"\x00" * 100_000)
    elif what == "reason":
        raise SampleError("no_such_reason", what)
    elif what == "shape":
        return DecodedImage(np.zeros((4, 4, 4), np.uint8), 4, 4, (0.0, 0.0, 4.0, 4.0))
    elif what == "box":
        return DecodedImage(np.zeros((4, 4, 3), np.uint8), 4, 4, (0.0, 0.0, 4.0, float("nan")))
    elif what == "huge":
        return DecodedImage(np.zeros((4_000, 4_000, 3), np.uint8), 4_000, 4_000, (0.0, 0.0, 4_000.0, 4_000.0))
    elif what == "object":
        return DecodedImage(np.zeros((4, 4, 3), object), 4, 4, (0.0, 0.0, 4.0, 4.0))
    elif what.startswith("try "):
        try:
            raise SampleError("undecodable_image", attempts(what[4:]))
        except OSError as error:
            raise SampleError("undecodable_image", f"errno {error.errno}") from error
    return DecodedImage(np.full((1, len(data), 3), 128, np.uint8), len(data), 1, (0.0, 0.0, float(len(data)), 1.0))
