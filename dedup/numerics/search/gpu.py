"""Products on a GPU: half precision proposes, float64 decides."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from dedup.errors import ConfigError, MissingExtra
from dedup.machine import may_have_gpu, task_gpus
from dedup.numerics.arraytypes import Floats, Ids, Rows32, Sims
from dedup.numerics.similarity import EXACT, Rows, half_limit

BLOCK = 64  # products whose maximum a device checks first
Strip = tuple[int, int]  # first column of a block of columns, first row


@dataclass(frozen=True)
class Tiling:
    """How the products of a list are cut up; sizes are multiples of `BLOCK`."""

    strip: int = 256  # rows of one product: wide enough for the matrix unit, narrow enough to skip half the square
    columns: int = 8_192  # columns of one product: bounds the float32 copies
    diagonal: int = 2_048  # rows of a piece on the diagonal, where a square is computed and only its upper triangle used


TILING = Tiling()


@dataclass(frozen=True)
class Grid:
    """The products of some rows with some columns."""

    n_rows: int
    n_columns: int
    is_same: bool  # whether rows and columns are the same, so that each pair counts once
    tiling: Tiling = TILING

    def strips(self) -> list[Strip]:
        """All strips; with `is_same`, in each block of columns those that lie, or begin, above the diagonal."""
        width, height = self.tiling.columns, self.tiling.strip
        return [
            (left, top)
            for left in range(0, self.n_columns, width)
            for top in range(0, min(left + width, self.n_rows) if self.is_same else self.n_rows, height)
        ]

    def cut(self, strips: Sequence[Strip], max_products: int) -> list[Piece]:
        """Put the first strips into pieces: at least one strip, and as many as have `max_products` products.

        `strips`: in the order of `Grid.strips`, some left out.
        """
        pieces: list[Piece] = []
        height, offset, start = self.tiling.strip, 0, 0
        while start < len(strips):
            left, top = strips[start]
            is_diagonal = self.is_same and top >= left
            first = top if is_diagonal else left
            width = padded(min(left + self.tiling.columns, self.n_columns) - first)
            room = (max_products - offset) // (width * height) or (0 if pieces else 1)
            stop = start
            while stop < min(start + room, len(strips)) and self._may_share(strips[start], strips[stop]):
                stop += 1
            if stop == start:
                break
            tops = np.array([strip[1] for strip in strips[start:stop]], dtype=np.int64)
            rows = (tops[:, None] + np.arange(height)).ravel()
            pieces.append(Piece(left, first, width, rows[rows < self.n_rows], offset, stop - start))
            offset, start = pieces[-1].end, stop
        return pieces

    def _may_share(self, strip: Strip, later: Strip) -> bool:
        """Whether two strips may be in one piece: they are of one block of columns and, on the diagonal, near each other."""
        (left, top), (other_left, other_top) = strip, later
        if left != other_left:
            return False
        return not self.is_same or other_top < left or (top >= left and other_top < top + self.tiling.diagonal)

    def decode(self, pieces: Sequence[Piece], places: Ids) -> tuple[Ids, Ids]:
        """Rows and columns of products from their places among those of all pieces; without padding and repeated pairs."""
        ends = np.array([piece.end for piece in pieces], dtype=np.int64)
        number = np.searchsorted(ends, places, side="right")
        i, j = np.empty_like(places), np.empty_like(places)
        for k in np.unique(number).tolist():
            piece, in_piece = pieces[k], np.flatnonzero(number == k)
            row, column = np.divmod(places[in_piece] - piece.offset, piece.width)
            i[in_piece], j[in_piece] = piece.rows[row], piece.first + column
        is_pair = j < self.n_columns
        if self.is_same:
            is_pair &= i < j
        return i[is_pair], j[is_pair]


@dataclass(frozen=True)
class Piece:
    """Some strips of one block of columns, whose products lie one after another."""

    left: int  # first column of the block
    first: int  # first column of the piece
    width: int  # columns, padded to a multiple of `BLOCK`
    rows: Ids  # strip by strip
    offset: int  # products of the pieces before it
    n_strips: int

    @property
    def end(self) -> int:
        """Products of the pieces up to this one."""
        return self.offset + len(self.rows) * self.width


def padded(n: int, multiple: int = BLOCK) -> int:
    """`n` rounded up to a multiple.

    >>> padded(65), padded(150, 8)
    (128, 152)
    """
    return -(-n // multiple) * multiple


_ALIGNED = 8  # float16 values to which tensor cores need rows aligned
_LOADED = 16_384  # rows gathered on the host at a time; bounds what their norms take on the device
Tensor = Any  # torch is not imported for its types
Result = TypeVar("Result")


@dataclass
class Device:
    """A device that torch computes on, and how much of its memory this process takes.

    Worker processes may share a GPU. Each holds at most `max_row_bytes` of rows and twice `max_products` bytes of products,
    some 1.6 GiB in all, besides some 0.5 GiB that CUDA takes for every process.
    """

    name: str  # torch's name: ``cuda:0``, ``cpu``
    max_row_bytes: int = 2**30  # up to which the rows of a list stay on it; a longer list is loaded a block of columns at a time
    max_products: int = 2**28  # computed at a time, 2 bytes each
    least_products: int = 2**20  # computed at a time, below which the device counts as full
    least_columns: int = 512  # from which it is used; for fewer, starting it costs more
    n_left: int = 0  # strips of products that did not fit into its memory, so that the CPU took them; counted here


def choose_device(setting: str) -> Device | None:
    """The device on which this process computes products; None = the CPU, without torch.

    `setting`: `engine.device`: ``cpu``; ``cuda``; ``auto`` = cuda where torch is installed and computes on a CUDA device.
    Raises MissingExtra if the setting is cuda and torch is not installed.
    Raises ConfigError if the setting is cuda and torch computes on no CUDA device.
    """
    if setting == "cpu" or (setting == "auto" and not may_have_gpu()):
        return None
    if importlib.util.find_spec("torch") is None:
        if setting == "auto":
            return None
        raise MissingExtra("torch", "gpu")
    name = f"cuda:{(*task_gpus(), '0')[0]}"
    reason = reason_against(name)
    if reason and setting != "auto":
        raise ConfigError(
            f"engine.device={setting}: expected a CUDA device on which torch computes, found that {name} is none ({reason}); "
            "install a torch that fits the driver, or set engine.device=auto"
        )
    return None if reason else Device(name)


@lru_cache(maxsize=64)
def reason_against(name: str) -> str:
    """Why torch does not compute on a device, in one line; empty if it does."""
    try:
        import torch

        if not torch.cuda.is_available():
            return "torch.cuda.is_available() is False"
        # a GPU that this torch has no code for is available too, and fails at its first product
        ones = torch.ones((8, 8), dtype=torch.float16, device=name)
        return "" if float((ones @ ones).sum()) == 512.0 else "a product came out wrong"
    except (ImportError, OSError, RuntimeError, AssertionError) as error:
        return (str(error).strip() or type(error).__name__).splitlines()[0]


def unless_full(compute: Callable[[], Result]) -> Result | None:
    """The result of a computation; None if the device has no memory for it."""
    try:
        return compute()
    except RuntimeError as error:
        # not every library raises torch's own exception
        is_full = type(error).__name__ == "OutOfMemoryError" or "out of memory" in str(error) or "ALLOC_FAILED" in str(error)
        if not is_full:
            raise
    # after the `except`, which would hold on to the tensors of the computation
    return None


def release(name: str) -> None:
    """Free the device memory of deleted tensors, for this process and others."""
    import torch

    if name.startswith("cuda"):
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class LoadedRows:
    """Rows on a device, padded with zeros to multiples of `BLOCK` and of eight, and the range of their norms."""

    tensor: Tensor  # float16 (n_padded, dim_padded)
    least_norm: float  # apart from rows of zeros, which are similar to none
    largest_norm: float

    @classmethod
    def load(cls, name: str, vectors: Rows, rows: Ids) -> LoadedRows:
        """Bring rows to a device, at least one."""
        import torch

        dim = vectors[rows[:1]].shape[1]
        tensor = torch.zeros((padded(len(rows)), padded(dim, _ALIGNED)), dtype=torch.float16, device=name)
        norms = torch.empty(len(rows), dtype=torch.float64, device=name)
        for start in range(0, len(rows), _LOADED):
            part = np.require(vectors[rows[start : start + _LOADED]], np.float16, ["C", "W"])
            loaded = tensor[start : start + len(part), :dim]
            loaded.copy_(torch.from_numpy(part))
            norms[start : start + len(part)] = torch.linalg.vector_norm(loaded, dim=1, dtype=torch.float64)
        least = torch.where(norms > 0.0, norms, 1.0).min()
        return cls(tensor, *torch.stack([least, norms.max()]).tolist())

    def take(self, places: Ids) -> Tensor:
        """Some rows, most of them consecutive."""
        import torch

        starts = np.flatnonzero(np.diff(places, prepend=-2) != 1)
        last = np.append(starts[1:], len(places)) - 1
        runs = [self.tensor[start : stop + 1] for start, stop in zip(places[starts].tolist(), places[last].tolist(), strict=True)]
        return runs[0] if len(runs) == 1 else torch.cat(runs)


def multiply(name: str, operands: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Products of each pair of operands, row by row: float16 tensor (n_blocks, BLOCK).

    Sums are in float32, rounded to float16 when they are written: half the bytes.
    """
    import torch

    ends = np.cumsum([len(rows) * len(columns) for rows, columns in operands]).tolist()
    products = torch.empty(ends[-1], dtype=torch.float16, device=name)
    with float32_sums():
        for (rows, columns), end in zip(operands, ends, strict=True):
            torch.mm(rows, columns.T, out=products[end - len(rows) * len(columns) : end].view(len(rows), len(columns)))
    return products.view(-1, BLOCK)


def blocks_above(products: Tensor, limit: float) -> Tensor:
    """Numbers of the blocks that hold a product of at least `limit`, a float16 number: int64 tensor (n,)."""
    # the maxima first, since most blocks hold no such product
    return (products.amax(dim=1) >= limit).nonzero().flatten()


def places_above(products: Tensor, blocks: Tensor, limit: float) -> Ids:
    """Places of the products of at least `limit` in some blocks."""
    row, column = (products[blocks] >= limit).nonzero(as_tuple=True)
    places: Ids = (blocks[row] * BLOCK + column).cpu().numpy()
    return places


def best_lists(name: str, rows: Rows32, centroids: Rows32, offsets: Sims, n_best: int, n_rows: int) -> tuple[Sims, Ids]:
    """The lists of the largest <row, centroid> - offset of each row, best first, in float32, on a device.

    `n_best`: at most nlist.
    `n_rows`: rows scored at a time.
    Returns `scores`, `lists`: shape (n, n_best).
    """
    import torch

    columns, lowered = (torch.tensor(array, dtype=torch.float32, device=name) for array in (centroids.T, -offsets))
    scores, lists = np.empty((len(rows), n_best), dtype=np.float32), np.empty((len(rows), n_best), dtype=np.int64)
    with float32_sums():
        for start in range(0, len(rows), n_rows):
            part = torch.tensor(rows[start : start + n_rows], dtype=torch.float32, device=name)
            best = torch.addmm(lowered, part, columns).topk(n_best, dim=1)
            scores[start : start + n_rows], lists[start : start + n_rows] = best.values.cpu().numpy(), best.indices.cpu().numpy()
    return scores, lists


def gram(name: str, rows: Rows32) -> Floats:
    """Products of all pairs of rows of `centred` pixels, float64 (n, n), on a device; as exact as `exact_products`."""
    import torch

    with float32_sums():
        loaded = torch.from_numpy(rows).to(name)
        sums = torch.zeros((len(rows), len(rows)), dtype=torch.float64, device=name)
        for start in range(0, rows.shape[1], EXACT):
            part = loaded[:, start : start + EXACT]
            sums += part @ part.T
        products: Floats = sums.cpu().numpy()
    return products


@contextmanager
def float32_sums() -> Iterator[None]:
    """Sum matrix products of float16 and of float32 in float32; torch's settings are restored afterwards."""
    import torch

    settings = torch.backends.cuda.matmul
    reduced = "allow_fp16_reduced_precision_reduction"
    wanted: dict[str, bool | str] = {reduced: False, "allow_fp16_accumulation": False}
    # torch refuses the older name once a process has used the newer
    wanted |= {"fp32_precision": "ieee"} if hasattr(settings, "fp32_precision") else {"allow_tf32": False}
    before = {key: getattr(settings, key) for key in wanted if hasattr(settings, key)}
    if hasattr(settings, f"{reduced}_split_k"):
        before[reduced] = (before[reduced], getattr(settings, f"{reduced}_split_k"))
    try:
        for key in before:
            setattr(settings, key, wanted[key])
        yield
    finally:
        for key, value in before.items():
            setattr(settings, key, value)


_BLOCKS = 2**14  # blocks of products searched at a time


class HalfProducts:
    """Pairs whose product in float16 may reach a threshold; see `half_limit`.

    Whole vectors are multiplied, not the projections that propose pairs on a CPU. On a GPU, writing a product and reading it
    once takes as long as some 400 multiply-adds, so shorter vectors save little, and what they propose in vain has to be
    judged on the CPU.

    `others`: the columns; None = the rows themselves, each pair once.
    `threshold`: cosine, in (0, 1].
    """

    def __init__(self, device: Device, vectors: Rows, rows: Ids, others: Ids | None, threshold: float, *, tiling: Tiling = TILING) -> None:
        self.device, self.vectors, self.rows, self.threshold = device, vectors, rows, threshold
        self.others = rows if others is None else others
        self.grid = Grid(len(rows), len(self.others), others is None, tiling)
        self.n_done = 0  # strips
        self._max_products = device.max_products
        self._loaded: dict[int, LoadedRows] = {}  # first column -> a block of columns; -1 -> all rows
        n_kept = len(self.others) + (0 if others is None else len(rows))
        self._keeps_rows = n_kept > 0 and 2 * n_kept * vectors[rows[:1]].shape[1] <= device.max_row_bytes

    def pairs(self, strips: Sequence[Strip]) -> Iterator[tuple[Ids, Ids]]:
        """Propose the pairs of strips, many strips at a time.

        `strips`: of `grid.strips()`, in their order.
        Yields places in `rows` and `others`: all pairs with a cosine of at least the threshold, and some below it, each once.

        Where memory runs out, fewer strips are computed at a time; if not even one fits, this ends after `n_done`.
        """
        while self.n_done < len(strips):
            pieces = self.grid.cut(strips[self.n_done :], self._max_products)
            computed = unless_full(lambda pieces=pieces: self.compute(pieces))  # type: ignore[misc]
            if computed is None:
                if not self._retreat():
                    self.device.n_left += len(strips) - self.n_done
                    return
                continue
            products, limit, blocks = computed
            for part in blocks.split(_BLOCKS):
                for places in self._places(products, part, limit):
                    yield self.grid.decode(pieces, places)
            self.n_done += sum(piece.n_strips for piece in pieces)

    def compute(self, pieces: Sequence[Piece]) -> tuple[Tensor, float, Tensor]:
        """Products of pieces, the limit they must reach, and the blocks in which some do."""
        operands, limits = [], []
        for piece in pieces:
            if self._keeps_rows:
                columns = self._load(0, self.others)
                loaded = columns if self.grid.is_same else self._load(-1, self.rows)
                rows, start = loaded.take(piece.rows), piece.first
            else:
                columns = self._load(piece.left, self.others[piece.left : piece.left + self.grid.tiling.columns])
                loaded = LoadedRows.load(self.device.name, self.vectors, self.rows[piece.rows])
                rows, start = loaded.tensor[: len(piece.rows)], piece.first - piece.left
            operands.append((rows, columns.tensor[start : start + piece.width]))
            norms = min(loaded.least_norm, columns.least_norm), max(loaded.largest_norm, columns.largest_norm)
            limits.append(half_limit(self.threshold, *norms, rows.shape[1]))
        products, limit = multiply(self.device.name, operands), min(limits)
        return products, limit, blocks_above(products, limit)

    def _load(self, first: int, rows: Ids) -> LoadedRows:
        if first not in self._loaded:
            if not self._keeps_rows:
                self._loaded.clear()
            self._loaded[first] = LoadedRows.load(self.device.name, self.vectors, rows)
        return self._loaded[first]

    def _places(self, products: Tensor, blocks: Tensor, limit: float) -> Iterator[Ids]:
        """Places of the products that reach the limit, in smaller parts where memory has run short since they were computed."""
        places = unless_full(lambda: places_above(products, blocks, limit)) if len(blocks) > 1 else places_above(products, blocks, limit)
        if places is not None:
            yield places
            return
        release(self.device.name)
        middle = len(blocks) // 2
        for half in (blocks[:middle], blocks[middle:]):
            yield from self._places(products, half, limit)

    def _retreat(self) -> bool:
        """Use less of the device's memory; whether that is possible."""
        self._loaded.clear()
        release(self.device.name)
        if self._max_products > self.device.least_products:
            self._max_products //= 2
            return True
        kept_rows, self._keeps_rows = self._keeps_rows, False
        return kept_rows
