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

BLOCK = 64  # products that a device looks at together first
Strip = tuple[int, int]  # first column of a block of columns, first row


@dataclass(frozen=True)
class Tiling:
    """Into what the products of a list are cut up: multiples of `BLOCK`."""

    strip: int = 256  # rows of one product: wide enough for the matrix unit, narrow enough to skip half the square
    columns: int = 8_192  # columns of one product: bounds the float32 copies
    diagonal: int = 2_048  # rows of a piece on the diagonal, where the upper triangle is wanted and a square is computed


TILING = Tiling()


@dataclass(frozen=True)
class Grid:
    """The products of some rows with some columns."""

    n_rows: int
    n_columns: int
    is_same: bool  # whether rows and columns are the same, and each pair is wanted once
    tiling: Tiling = TILING

    def strips(self) -> list[Strip]:
        """All strips: of each block of columns those that lie, or begin, above the diagonal."""
        width, height = self.tiling.columns, self.tiling.strip
        return [
            (left, top)
            for left in range(0, self.n_columns, width)
            for top in range(0, min(left + width, self.n_rows) if self.is_same else self.n_rows, height)
        ]

    def cut(self, strips: Sequence[Strip], max_products: int) -> list[Piece]:
        """The first of the strips, as many as have `max_products` products and at least one, as pieces.

        Parameters
        ----------
        strips : sequence of Strip
            In the order of `strips`, some left out.
        max_products : int

        Returns
        -------
        list of Piece
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
        """Whether two strips may be in one piece: of one block of columns, and on the diagonal near each other."""
        (left, top), (other_left, other_top) = strip, later
        if left != other_left:
            return False
        return not self.is_same or other_top < left or (top >= left and other_top < top + self.tiling.diagonal)

    def decode(self, pieces: Sequence[Piece], places: Ids) -> tuple[Ids, Ids]:
        """Rows and columns of products by their place among those of all pieces, the wanted ones.

        Parameters
        ----------
        pieces : sequence of Piece
        places : int64 array, shape (n,)

        Returns
        -------
        i, j : int64 array, shape (n_wanted,)
        """
        ends = np.array([piece.end for piece in pieces], dtype=np.int64)
        number = np.searchsorted(ends, places, side="right")
        i, j = np.empty_like(places), np.empty_like(places)
        for k in np.unique(number).tolist():
            piece, here = pieces[k], np.flatnonzero(number == k)
            row, column = np.divmod(places[here] - piece.offset, piece.width)
            i[here], j[here] = piece.rows[row], piece.first + column
        wanted = j < self.n_columns
        if self.is_same:
            wanted &= i < j
        return i[wanted], j[wanted]


@dataclass(frozen=True)
class Piece:
    """Some strips of one block of columns, whose products lie one after another."""

    left: int  # first column of the block
    first: int  # first column of the piece
    width: int  # its columns, some of them past the last one: a multiple of `BLOCK`
    rows: Ids  # strip after strip
    offset: int  # products before its own
    n_strips: int

    @property
    def end(self) -> int:
        """Products up to its last."""
        return self.offset + len(self.rows) * self.width


def padded(n: int, multiple: int = BLOCK) -> int:
    """The next multiple.

    Examples
    --------
    >>> padded(65), padded(150, 8)
    (128, 152)
    """
    return -(-n // multiple) * multiple


_ALIGNED = 8  # float16 values to which tensor cores want rows aligned
_LOADED = 16_384  # rows gathered on the host at a time; bounds what their norms take on the device
Tensor = Any  # torch is not imported for its types
Found = TypeVar("Found")


@dataclass
class Device:
    """A device that torch computes on, and how much of its memory this process takes.

    Worker processes may share a GPU. Each holds at most `max_row_bytes` of rows and twice `max_products` bytes of products,
    some 1.6 GiB in all, beside some 0.5 GiB that CUDA takes of every process.
    """

    name: str  # as torch says it: ``cuda:0``, ``cpu``
    max_row_bytes: int = 2**30  # up to which the rows of a list stay on it; those of a longer one go there a block of columns at a time
    max_products: int = 2**28  # computed at a time, 2 bytes each
    least_products: int = 2**20  # at a time, below which it is as good as full
    least_columns: int = 512  # from which pairs are looked for on it; below, starting it costs more
    n_left: int = 0  # strips of products that its memory did not suffice for, so that the CPU took them; counted here


def choose_device(setting: str) -> Device | None:
    """The device on which this process computes products; None = the CPU, without torch.

    Parameters
    ----------
    setting : str
        `engine.device`: ``cpu``; ``cuda``; ``auto`` = cuda where torch is installed and computes on a CUDA device.

    Raises
    ------
    MissingExtra
        If cuda is asked for and torch is not installed.
    ConfigError
        If cuda is asked for and torch computes on no CUDA device.
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
        # a GPU that this torch has no code for is there as well, and fails at its first product
        ones = torch.ones((8, 8), dtype=torch.float16, device=name)
        return "" if float((ones @ ones).sum()) == 512.0 else "a product came out wrong"
    except (ImportError, OSError, RuntimeError, AssertionError) as error:
        return (str(error).strip() or type(error).__name__).splitlines()[0]


def unless_full(compute: Callable[[], Found]) -> Found | None:
    """What a computation gives; None if the device has no memory for it."""
    try:
        return compute()
    except RuntimeError as error:
        # not every library says so by torch's own exception
        is_full = type(error).__name__ == "OutOfMemoryError" or "out of memory" in str(error) or "ALLOC_FAILED" in str(error)
        if not is_full:
            raise
    # past the `except`, which holds on to the tensors of the computation
    return None


def release(name: str) -> None:
    """Give the memory of tensors that are gone back to a device, for this process and those beside it."""
    import torch

    if name.startswith("cuda"):
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class LoadedRows:
    """Rows on a device, with zeros up to multiples of `BLOCK` and of eight, and the norms between which theirs lie."""

    tensor: Tensor  # float16 (n_padded, dim_padded)
    least_norm: float  # rows of zeros aside, which are like no other
    largest_norm: float

    @classmethod
    def of(cls, name: str, vectors: Rows, rows: Ids) -> LoadedRows:
        """Bring rows to a device, at least one."""
        import torch

        dim = vectors[rows[:1]].shape[1]
        tensor = torch.zeros((padded(len(rows)), padded(dim, _ALIGNED)), dtype=torch.float16, device=name)
        norms = torch.empty(len(rows), dtype=torch.float64, device=name)
        for start in range(0, len(rows), _LOADED):
            part = np.require(vectors[rows[start : start + _LOADED]], np.float16, ["C", "W"])
            there = tensor[start : start + len(part), :dim]
            there.copy_(torch.from_numpy(part))
            norms[start : start + len(part)] = torch.linalg.vector_norm(there, dim=1, dtype=torch.float64)
        least = torch.where(norms > 0.0, norms, 1.0).min()
        return cls(tensor, *torch.stack([least, norms.max()]).tolist())

    def take(self, places: Ids) -> Tensor:
        """Some rows, of which most follow each other."""
        import torch

        starts = np.flatnonzero(np.diff(places, prepend=-2) != 1)
        last = np.append(starts[1:], len(places)) - 1
        runs = [self.tensor[start : stop + 1] for start, stop in zip(places[starts].tolist(), places[last].tolist(), strict=True)]
        return runs[0] if len(runs) == 1 else torch.cat(runs)


def multiply(name: str, operands: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Products of rows with rows, float16 tensor (n_blocks, BLOCK): those of each pair of operands, row after row.

    The sums are float32 and rounded to float16 when they are written, which is half the bytes.
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
    # one look at everything, and a second only where something is: most blocks hold nothing
    return (products.amax(dim=1) >= limit).nonzero().flatten()


def places_above(products: Tensor, blocks: Tensor, limit: float) -> Ids:
    """Places of the products of at least `limit` in some blocks, int64 (n,)."""
    row, column = (products[blocks] >= limit).nonzero(as_tuple=True)
    places: Ids = (blocks[row] * BLOCK + column).cpu().numpy()
    return places


def best_lists(
    name: str,
    rows: Rows32,
    centroids: Rows32,
    offsets: Sims,
    n_best: int,
    n_rows: int,
) -> tuple[Sims, Ids]:
    """The lists of the largest <row, centroid> - offset of each row, in float32.

    Parameters
    ----------
    name : str
        Of a device.
    rows : float32 array, shape (n, dim)
    centroids : float32 array, shape (nlist, dim)
    offsets : float32 array, shape (nlist,)
    n_best : int
        At most nlist.
    n_rows : int
        Rows scored at a time.

    Returns
    -------
    scores : float32 array, shape (n, n_best)
        Descending.
    lists : int64 array, shape (n, n_best)
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
    """Products of all pairs of rows of centred pixels, as exactly as `exact_products` has them.

    Parameters
    ----------
    name : str
        Of a device.
    rows : float32 array, shape (n, dim)
        As `centred` gives them.

    Returns
    -------
    float64 array, shape (n, n)
    """
    import torch

    with float32_sums():
        there = torch.from_numpy(rows).to(name)
        sums = torch.zeros((len(rows), len(rows)), dtype=torch.float64, device=name)
        for start in range(0, rows.shape[1], EXACT):
            part = there[:, start : start + EXACT]
            sums += part @ part.T
        products: Floats = sums.cpu().numpy()
    return products


@contextmanager
def float32_sums() -> Iterator[None]:
    """Matrix products with sums in float32, of float16 and of float32; the settings of the process are put back."""
    import torch

    settings = torch.backends.cuda.matmul
    reduced = "allow_fp16_reduced_precision_reduction"
    wanted: dict[str, bool | str] = {reduced: False, "allow_fp16_accumulation": False}
    # torch refuses to be asked by the older name once a process has used the newer
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


_BLOCKS = 2**14  # blocks of products whose pairs are looked for at a time


class HalfProducts:
    """Pairs whose product in float16 may reach a threshold; see `half_limit`.

    Products are those of whole vectors, not of the projections that propose pairs on a CPU. On a GPU to write a product and read
    it once takes as long as some 400 multiply-adds, so that shorter vectors save little, and what they propose in vain has
    to be judged on the CPU.

    Parameters
    ----------
    device : Device
    vectors : float16 array, shape (n_all, dim), or Rows
    rows : int64 array, shape (n,)
    others : int64 array, shape (m,), or None
        The columns; None = the rows themselves, each pair once.
    threshold : float
        Cosine, in (0, 1].
    tiling : Tiling
    """

    def __init__(self, device: Device, vectors: Rows, rows: Ids, others: Ids | None, threshold: float, *, tiling: Tiling = TILING) -> None:
        self.device, self.vectors, self.rows, self.threshold = device, vectors, rows, threshold
        self.others = rows if others is None else others
        self.grid = Grid(len(rows), len(self.others), others is None, tiling)
        self.n_done = 0  # strips
        self._max_products = device.max_products
        self._loaded: dict[int, LoadedRows] = {}  # columns by the first; those of all rows by -1
        n_kept = len(self.others) + (0 if others is None else len(rows))
        self._keeps_rows = n_kept > 0 and 2 * n_kept * vectors[rows[:1]].shape[1] <= device.max_row_bytes

    def pairs(self, strips: Sequence[Strip]) -> Iterator[tuple[Ids, Ids]]:
        """Propose the pairs of strips, many strips at a time.

        Parameters
        ----------
        strips : sequence of Strip
            Of `grid.strips()`, in their order.

        Yields
        ------
        i, j : int64 array, shape (n_pairs,)
            Places in `rows` and `others`: all pairs with a cosine of at least the threshold, and others below it, each once.

        Notes
        -----
        Where memory does not suffice, fewer strips are taken at a time; where it does not for one, this ends after `n_done`.
        """
        while self.n_done < len(strips):
            pieces = self.grid.cut(strips[self.n_done :], self._max_products)
            found = unless_full(lambda pieces=pieces: self.compute(pieces))  # type: ignore[misc]
            if found is None:
                if not self._retreat():
                    self.device.n_left += len(strips) - self.n_done
                    return
                continue
            products, limit, blocks = found
            for part in blocks.split(_BLOCKS):
                for places in self._places(products, part, limit):
                    yield self.grid.decode(pieces, places)
            self.n_done += sum(piece.n_strips for piece in pieces)

    def compute(self, pieces: Sequence[Piece]) -> tuple[Tensor, float, Tensor]:
        """Products of pieces, what they must reach, and the blocks in which some do."""
        operands, limits = [], []
        for piece in pieces:
            if self._keeps_rows:
                columns = self._load(0, self.others)
                every = columns if self.grid.is_same else self._load(-1, self.rows)
                rows, start = every.take(piece.rows), piece.first
            else:
                columns = self._load(piece.left, self.others[piece.left : piece.left + self.grid.tiling.columns])
                every = LoadedRows.of(self.device.name, self.vectors, self.rows[piece.rows])
                rows, start = every.tensor[: len(piece.rows)], piece.first - piece.left
            operands.append((rows, columns.tensor[start : start + piece.width]))
            norms = min(every.least_norm, columns.least_norm), max(every.largest_norm, columns.largest_norm)
            limits.append(half_limit(self.threshold, *norms, rows.shape[1]))
        products, limit = multiply(self.device.name, operands), min(limits)
        return products, limit, blocks_above(products, limit)

    def _load(self, first: int, rows: Ids) -> LoadedRows:
        if first not in self._loaded:
            if not self._keeps_rows:
                self._loaded.clear()
            self._loaded[first] = LoadedRows.of(self.device.name, self.vectors, rows)
        return self._loaded[first]

    def _places(self, products: Tensor, blocks: Tensor, limit: float) -> Iterator[Ids]:
        """Products that reach the limit, in smaller parts where memory has become short since they were made."""
        found = unless_full(lambda: places_above(products, blocks, limit)) if len(blocks) > 1 else places_above(products, blocks, limit)
        if found is not None:
            yield found
            return
        release(self.device.name)
        middle = len(blocks) // 2
        for half in (blocks[:middle], blocks[middle:]):
            yield from self._places(products, half, limit)

    def _retreat(self) -> bool:
        """Take less of the device's memory; whether it can be less."""
        self._loaded.clear()
        release(self.device.name)
        if self._max_products > self.device.least_products:
            self._max_products //= 2
            return True
        could_be_less, self._keeps_rows = self._keeps_rows, False
        return could_be_less
