"""Other tools in `quality.py`: their results for the same files, converted to pairs with a distance."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from quality_files import Design
from quality_measures import Pairs, Tally, tally_pairs

Words = npt.NDArray[np.uint64]
_WORKER = Path(__file__).with_name("peer_worker.py")
PDQ_MIN_QUALITY = 50


@dataclasses.dataclass(frozen=True)
class Peer:
    """A tool and its settings.

    Attributes
    ----------
    name : str
    method : str
        Word for `peer_worker.py`.
    default : float
        Distance up to which its documentation calls two images copies; a similarity with its sign turned.
    sweep : tuple of float
        Thresholds of the curve, the last is the largest distance looked at.
    step : float
        Smallest difference of two distances.
    """

    name: str
    method: str
    default: float
    sweep: tuple[float, ...]
    step: float = 1.0


_BITS = tuple(float(bits) for bits in range(0, 21, 2))
_PDQ = tuple(float(bits) for bits in (0, 8, 16, 24, 31, 40, 48, 56, 64, 72, 80))
PEERS = (
    Peer("imagededup PHash", "phash", 10, _BITS),
    Peer("imagededup DHash", "dhash", 10, _BITS),
    Peer("PDQ", "pdq", 31, _PDQ),
    Peer("PDQ, 8 turns", "pdq", 31, _PDQ),
    Peer("fastdup", "fastdup", -0.9, tuple(-share / 100 for share in (99, 98, 96, 94, 92, 90, 88, 86, 84, 82, 80, 75, 70, 60, 50)), 1e-6),
)


def pairs_within(first: Words, second: Words, max_distance: float, *, is_same: bool = False, max_cells: int = 4_000_000) -> Pairs:
    """Pairs of hashes that differ in at most this many bits, the least over the turns of the first.

    Parameters
    ----------
    first : uint64 array, shape (n_turns, n, words)
    second : uint64 array, shape (m, words)
    max_distance : float
    is_same : bool
        Whether both hold the same files, so that each pair is wanted once.
    max_cells : int
        Distances held at a time.
    """
    rows = max(1, max_cells // max(1, len(second)))
    found = [Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for start in range(0, first.shape[1], rows):
        block = first[:, start : start + rows]
        distance = np.min([np.bitwise_count(turn[:, None] ^ second).sum(axis=2, dtype=np.int64) for turn in block], axis=0)
        src, dst = np.nonzero(distance <= max_distance)
        near = distance[src, dst]
        src = src + start
        wanted = src < dst if is_same else slice(None)
        found.append(Pairs(src[wanted], dst[wanted], near[wanted].astype(np.float64)))
    return Pairs(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def hash_pairs(hashes: dict[str, list[str]], design: Design, max_distance: float) -> dict[str, Pairs]:
    """Pairs of every batch, from hex digits of each file (in one or more orientations); files without a hash have none.

    Pairs of photos are the same in all batches and compared once.
    """

    def words(files: list[Path]) -> tuple[npt.NDArray[np.int64], Words]:
        names = [file.relative_to(design.folder).as_posix() for file in files]
        places = [k for k, name in enumerate(names) if name in hashes]
        digits = [bytes.fromhex("".join(hashes[names[k]])) for k in places]
        n_turns = len(next(iter(hashes.values())))
        flat = np.frombuffer(b"".join(digits), dtype=np.uint64)
        return np.array(places, dtype=np.int64), flat.reshape(len(places), n_turns, -1).transpose(1, 0, 2)

    photos, of_photos = words([design.base_file(photo) for photo in range(design.n_photos)])
    among = pairs_within(of_photos, of_photos[0], max_distance, is_same=True)
    batches = {}
    for change in design.changes:
        copies, of_copies = words([design.copy_file(change, original) for original in range(design.n_originals)])
        copies = copies + design.n_photos
        across, within = (
            pairs_within(of_copies, of_photos[0], max_distance),
            pairs_within(of_copies, of_copies[0], max_distance, is_same=True),
        )
        batches[change] = Pairs(
            np.concatenate([photos[among.src], copies[across.src], copies[within.src]]),
            np.concatenate([photos[among.dst], photos[across.dst], copies[within.dst]]),
            np.concatenate([among.distance, across.distance, within.distance]),
        )
    return batches


def clean_threshold(pairs: dict[str, Pairs], peer: Peer, design: Design) -> float | None:
    """The largest distance at which no batch holds a pair of different photos; None if even the least distance has one."""
    identity = design.batch_identity
    wrong = [batch.distance[identity[batch.src] != identity[batch.dst]] for batch in pairs.values()]
    least = min((float(distance.min()) for distance in wrong if len(distance)), default=np.inf)
    threshold = min(peer.sweep[-1], round(least - peer.step, 6) if np.isfinite(least) else np.inf)
    return threshold if threshold >= (0.0 if peer.default > 0 else -1.0) else None


def curve(pairs: dict[str, Pairs], peer: Peer, design: Design, max_merges: int = 5_000) -> Iterator[tuple[float, Tally]]:
    """Tallies over the sweep, from the strictest threshold until a batch has too many pairs of different photos."""
    identity = design.batch_identity
    for threshold in peer.sweep:
        wrong = [(identity[batch.src] != identity[batch.dst]) & (batch.distance <= threshold) for batch in pairs.values()]
        if max(map(np.count_nonzero, wrong)) > max_merges:
            return
        yield threshold, tally_pairs(pairs, threshold, design)


class Peers:
    """Runs the peers' Python; hashes are made once for the tools that share them."""

    def __init__(self, python: str, design: Design, scratch: Path) -> None:
        self._python, self._design, self._scratch = python, design, scratch
        self._answers: dict[str, tuple[dict[str, Any], float]] = {}

    def pairs(self, peer: Peer) -> tuple[dict[str, Pairs], float]:
        """Pairs of every batch and the seconds they took.

        Raises
        ------
        RuntimeError
            If the tool is not there or fails.
        """
        answer, seconds = self._ask(peer.method)
        started = time.perf_counter()
        if peer.method == "fastdup":
            pairs = {change: _from_rows(rows) for change, rows in answer.items()}
        else:
            pairs = hash_pairs(_orientations(answer, peer), self._design, peer.sweep[-1])
        return pairs, seconds + time.perf_counter() - started

    def _ask(self, method: str) -> tuple[dict[str, Any], float]:
        if method not in self._answers:
            target = self._scratch / f"{method}.json"
            source = str(self._design.folder.resolve())
            if method == "fastdup":
                listed = self._scratch / "batches.json"
                listed.write_text(
                    json.dumps({change: [str(f.resolve()) for f in self._design.batch(change)] for change in self._design.changes})
                )
                source = str(listed)
            started = time.perf_counter()
            try:
                done = subprocess.run(
                    [self._python, str(_WORKER), method, source, str(target)], capture_output=True, text=True, check=False
                )
            except OSError as error:
                raise RuntimeError(str(error)) from error
            if done.returncode:
                raise RuntimeError((done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1])
            self._answers[method] = json.loads(target.read_text()), time.perf_counter() - started
        return self._answers[method]


def _orientations(answer: dict[str, Any], peer: Peer) -> dict[str, list[str]]:
    if peer.method != "pdq":
        return {name: [digits] for name, digits in answer.items() if digits}
    # PDQ's own rule: do not compare hashes of featureless images
    n_turns = 8 if "turns" in peer.name else 1
    return {name: hashes[:n_turns] for name, (quality, hashes) in answer.items() if quality >= PDQ_MIN_QUALITY}


def _from_rows(rows: list[list[float]]) -> Pairs:
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return Pairs(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), -table[:, 2])
