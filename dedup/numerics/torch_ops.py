"""What is computed with torch: matrix products on a GPU.

They propose pairs and lists; what is near the line is settled on the CPU, in float64. Torch is imported where something is
computed: importing it takes seconds, which runs without a GPU never pay. Everything here also runs on torch's CPU, which is
how it is tested where there is no GPU.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dedup.devices import may_have_gpu, task_gpus
from dedup.errors import ConfigError, MissingExtra
from dedup.numerics.collapse import Rows
from dedup.numerics.strips import BLOCK, padded
from dedup.numerics.wholeproducts import EXACT

_ALIGNED = 8  # float16 values to which tensor cores want rows aligned
_LOADED = 16_384  # rows gathered on the host at a time; bounds what their norms take on the device

Tensor = Any  # torch is not imported for its types
Found = TypeVar("Found")


@dataclass
class Device:
    """A device that torch computes on, and how much of its memory this process takes.

    Worker processes may share a GPU. Each holds at most `max_row_bytes` of rows and twice `max_products` bytes of products,
    some 1.6 GiB in all, beside some 0.5 GiB that CUDA takes of every process.

    Parameters
    ----------
    name : str
        As torch says it: ``cuda:0``, ``cpu``.
    max_row_bytes : int
        Up to which the rows of a list stay on the device; those of a longer list go there a block of columns at a time.
    max_products : int
        Products computed at a time, 2 bytes each.
    n_left : int
        Strips of products that its memory did not suffice for, so that the CPU took them; counted here.
    """

    name: str
    max_row_bytes: int = 2**30
    max_products: int = 2**28
    n_left: int = 0


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
    reason = _reason_against(name)
    if reason and setting != "auto":
        raise ConfigError(
            f"engine.device={setting}: expected a CUDA device on which torch computes, found that {name} is none ({reason}); "
            "install a torch that fits the driver, or set engine.device=auto"
        )
    return None if reason else Device(name)


@lru_cache(maxsize=64)
def _reason_against(name: str) -> str:
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
    """Rows on a device, with zeros up to multiples of `BLOCK` and of eight, and the norms between which theirs lie.

    Parameters
    ----------
    tensor : float16 tensor, shape (n_padded, dim_padded)
    least_norm, largest_norm : float
        Rows of zeros aside, which are like no other.
    """

    tensor: Tensor
    least_norm: float
    largest_norm: float

    @classmethod
    def of(cls, name: str, vectors: Rows, rows: npt.NDArray[np.int64]) -> LoadedRows:
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

    def take(self, places: npt.NDArray[np.int64]) -> Tensor:
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
    with _float32_sums():
        for (rows, columns), end in zip(operands, ends, strict=True):
            torch.mm(rows, columns.T, out=products[end - len(rows) * len(columns) : end].view(len(rows), len(columns)))
    return products.view(-1, BLOCK)


def blocks_above(products: Tensor, limit: float) -> Tensor:
    """Numbers of the blocks that hold a product of at least `limit`, a float16 number: int64 tensor (n,)."""
    # one look at everything, and a second only where something is: most blocks hold nothing
    return (products.amax(dim=1) >= limit).nonzero().flatten()


def places_above(products: Tensor, blocks: Tensor, limit: float) -> npt.NDArray[np.int64]:
    """Places of the products of at least `limit` in some blocks, int64 (n,)."""
    row, column = (products[blocks] >= limit).nonzero(as_tuple=True)
    places: npt.NDArray[np.int64] = (blocks[row] * BLOCK + column).cpu().numpy()
    return places


def best_lists(
    name: str,
    rows: npt.NDArray[np.float32],
    centroids: npt.NDArray[np.float32],
    offsets: npt.NDArray[np.float32],
    n_best: int,
    n_rows: int,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
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
    with _float32_sums():
        for start in range(0, len(rows), n_rows):
            part = torch.tensor(rows[start : start + n_rows], dtype=torch.float32, device=name)
            best = torch.addmm(lowered, part, columns).topk(n_best, dim=1)
            scores[start : start + n_rows], lists[start : start + n_rows] = best.values.cpu().numpy(), best.indices.cpu().numpy()
    return scores, lists


def gram(name: str, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
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

    with _float32_sums():
        there = torch.from_numpy(rows).to(name)
        sums = torch.zeros((len(rows), len(rows)), dtype=torch.float64, device=name)
        for start in range(0, rows.shape[1], EXACT):
            part = there[:, start : start + EXACT]
            sums += part @ part.T
        products: npt.NDArray[np.float64] = sums.cpu().numpy()
    return products


@contextmanager
def _float32_sums() -> Iterator[None]:
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
