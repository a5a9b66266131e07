"""Animations and files of several pages: which frames are looked at, and the contact sheet made of them."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

import numpy as np
from PIL import Image

MAX_COUNTED: Final = 65_536  # frames that are counted: files of millions take no longer
WINDOW: Final = 64  # first frames among which are those looked at: an animation decodes all before them
_SHOWN_AT: Final = (0.0, 0.342, 0.658, 1.0)  # shares of the time; no round fractions, which fall between two frames
_UNSAID_MS: Final = 100.0  # how long browsers show a frame whose delay is 10 ms or less
_SIDE: Final = 32  # at which frames are compared
_LEAST_CHANGE: Final = 12  # levels that some part of a frame changes by: palettes and lossy frames flicker less
_MAX_BLOCKS: Final = 2**20  # of a GIF that are walked over: 256 MB of full ones
_GIF_BLOCK: Final = re.compile(rb"[\x21\x2c\x3b]")


@dataclass
class Timeline:
    """The frames of a file."""

    delays: Sequence[float] = field(default_factory=list)  # milliseconds, of the first frames
    n_frames: int = 1
    # of the canvas with all frames, where they may be larger than it; 0 = that of the file
    width: int = 0
    height: int = 0


def frames_to_look_at(frames: Timeline, n_pixels: int, max_pixels: int) -> list[int]:
    """Four frames spread over the time of an animation, the first and the last included; [0] for a single one.

    Only the first 64 frames count, and of large ones as many as have `max_pixels` together. Frames are chosen by time, since encoders
    merge equal frames, and drop some in others' favour.

    `n_pixels`: of one frame.

    Examples
    --------
    >>> frames_to_look_at(Timeline([40.0] * 10, 10), 10_000, 10**8)
    [0, 3, 6, 9]
    """
    n_frames = min(frames.n_frames, WINDOW, max(1, max_pixels // max(n_pixels, 1)))
    if n_frames < 2:
        return [0]
    delays = [delay if delay > 10 else _UNSAID_MS for delay in frames.delays[:n_frames]]
    delays += [_UNSAID_MS] * (n_frames - len(delays))
    ends = list(accumulate(delays))
    return [min(bisect_right(ends, share * ends[-1]), n_frames - 1) for share in _SHOWN_AT]


def differ(frames: Sequence[Image.Image]) -> bool:
    """Whether frames show different pictures; frames of modes RGB or RGBA."""
    small = [np.asarray(frame.convert("RGBA").resize((_SIDE, _SIDE), Image.Resampling.BOX)).astype(np.int16) for frame in frames]
    seen = [values * (values[:, :, 3:] > 0) for values in small]
    return any(int(np.abs(other - seen[0]).max()) > _LEAST_CHANGE for other in seen[1:])


def contact_sheet(frames: Sequence[Image.Image]) -> Image.Image:
    """Four frames as one picture, two by two in the order of reading; each is stretched to the size of the first."""
    width, height = frames[0].size
    mode = "RGBA" if any(frame.mode == "RGBA" for frame in frames) else "RGB"
    sheet = Image.new(mode, (2 * width, 2 * height))
    for place, frame in enumerate(frames):
        cell = frame.convert(mode)
        cell = cell if cell.size == (width, height) else cell.resize((width, height), Image.Resampling.BILINEAR)
        sheet.paste(cell, (place % 2 * width, place // 2 * height))
    return sheet


def gif_frames(data: bytes) -> Timeline:
    """The frames of a GIF, counted by its blocks; a broken one as far as it goes."""
    delays: list[float] = []
    width, height = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    n_frames, delay, at, n_blocks = 0, 0.0, 13, 0
    try:
        at += 3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0
        while data[at] != 0x3B and n_frames < MAX_COUNTED and n_blocks < _MAX_BLOCKS:
            if data[at] == 0x21:
                if data[at + 1] == 0xF9:
                    delay = 10.0 * int.from_bytes(data[at + 4 : at + 6], "little")
                at += 2
            elif data[at] == 0x2C:
                left, top, wide, high = (int.from_bytes(data[at + place : at + place + 2], "little") for place in (1, 3, 5, 7))
                if n_frames < WINDOW:
                    width, height = max(width, left + wide), max(height, top + high)
                    delays.append(delay)
                n_frames, delay = n_frames + 1, 0.0
                at += 11 + (3 << (data[at + 9] & 7) + 1 if data[at + 9] & 0x80 else 0)
            else:  # passed over, as decoders do, until a block begins
                block = _GIF_BLOCK.search(data, at)
                at = block.start() if block else len(data)
                continue
            while data[at] and n_blocks < _MAX_BLOCKS:
                at += data[at] + 1
                n_blocks += 1
            at += 1
    except IndexError:
        pass
    return Timeline(delays, max(n_frames, 1), width, height)


def webp_frames(data: bytes) -> Timeline:
    """The frames of a WebP, counted by its chunks."""
    delays: list[float] = []
    n_frames, at = 0, 12
    while at + 8 <= len(data) and n_frames < MAX_COUNTED:
        if data.startswith(b"ANMF", at):
            n_frames += 1
            if n_frames <= WINDOW:
                delays.append(float(int.from_bytes(data[at + 20 : at + 23], "little")))
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + (length & 1)
    return Timeline(delays, max(n_frames, 1))
