"""Vision models on torch: open_clip's, and TorchScript files such as SSCD's."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from cachetools import LRUCache, cached

from dedup.config import EncoderConfig
from dedup.encoders.clip_models import ModelSpec, find_model
from dedup.errors import ConfigError, StageError
from dedup.machine import gpu_sharers, task_gpus
from dedup.numerics.image.descriptor import Crop

_DTYPES: Final = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_CPU_BATCH: Final = 32
_MAX_CACHED_WORDS: Final = 200_000  # of the tokenizer's cache, which evicts nothing itself
_MAX_BATCH: Final = 1_024  # larger ones gain nothing on today's GPUs and take more memory on both sides
_MEMORY_SHARE: Final = 0.6  # of a GPU's free memory, for activations


def n_gpus() -> int:
    """CUDA devices that this process sees; none is initialised."""
    return int(torch.cuda.device_count())


def _device_of_task(device: str) -> str:
    """The GPU that the scheduler gave the running task, else the first; the CPU if there is none or `device` is ``cpu``."""
    if device == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        gpus = task_gpus()
        return f"cuda:{gpus[0]}" if gpus else "cuda:0"
    if device == "cuda":
        raise ConfigError(
            f"engine.device=cuda, but torch {torch.__version__} sees no CUDA device here; expected an NVIDIA GPU with its driver, "
            "and a torch built for CUDA; set engine.device=auto to continue on the CPU"
        )
    return "cpu"


def _identity(config: EncoderConfig, device: str) -> tuple[object, ...]:
    return config, _device_of_task(device), tuple(find_model(config).fingerprint().items())


@cached(LRUCache(1), key=_identity, lock=threading.Lock())
def load_clip(config: EncoderConfig, device: str) -> ClipEncoder:
    """The configured model, on the task's device; loaded once per process and device.

    Raises ConfigError if `device` is ``cuda`` and there is none, or the weights do not fit the model.
    """
    return ClipEncoder(config, find_model(config), _device_of_task(device))


class ClipEncoder:
    """Unit vectors of a vision model.

    `device`: ``cpu`` or ``cuda:0``.
    `dim`, `min_side`, `limit`: see `Encoder`.
    `dtype`: of the model's computation.
    `embed`: the model alone: normalised pixels (n, 3, height, width) on its device to vectors, of any length.
    `embed_text`: the text half of a model that has one: tokens on its device to vectors, of any length.
    Raises ConfigError if the weights can't be read or do not fit the model.
    """

    def __init__(self, config: EncoderConfig, spec: ModelSpec, device: str) -> None:
        self._spec, self._preprocessing, self._device = spec, spec.preprocessing, torch.device(device)
        precision = config.precision
        if precision == "auto":
            precision = "fp32" if self._device.type == "cpu" else "fp16"
        self.dtype = _DTYPES[precision]
        with torch.inference_mode(False):
            self._model = _open_clip_model(spec, precision, self._device) if spec.name else _script(spec, self.dtype, self._device)
        self.embed = self._model.encode_image if spec.name else self._model
        self.embed_text: Any = self._model.encode_text if spec.name else None
        self._mean, self._std = (
            torch.tensor(values, device=self._device).view(1, 3, 1, 1) for values in (spec.preprocessing.mean, spec.preprocessing.std)
        )
        self._tokenizer: Any = None
        self.device, self.min_side, self.limit = str(self._device), spec.preprocessing.min_side, 0
        self._largest_batch = 0
        self._notes: list[str] = []
        self._lock = threading.Lock()
        self.dim = self._probe()
        self._streams = threading.local()
        self._is_compiled = config.compile
        if config.compile:  # only after the probe, whose batch has another size
            self.embed = torch.compile(self.embed, dynamic=False)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # the weights must arrive before other streams read them

    @cached_property
    def batch_size(self) -> int:
        """Images per batch: on a GPU, as many as fit into its free memory, at most 1,024."""
        return _CPU_BATCH if self._device.type == "cpu" else self._measure_batch_size()

    def prepare(self, crop: Crop) -> npt.NDArray[np.uint8]:
        """Resize and crop to uint8 (height, width, 3); pixels are normalised on the model's device."""
        return self._preprocessing(crop.pixels, crop.box)

    def encode(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Unit vectors (n, dim) of prepared images (n, height, width, 3).

        If a GPU runs out of memory, the batch is halved until it fits, and later ones are cut to that size.

        Raises StageError if not even one image fits.
        """
        return self._in_parts(len(batch), lambda start, stop, size: self._forward(self._padded(batch[start:stop], size))[: stop - start])

    def encode_captions(self, captions: Sequence[str]) -> npt.NDArray[np.float32] | None:
        """Unit vectors (n, dim) of captions, truncated to the model's context; None for a model without text."""
        if not self._spec.name:
            return None
        with self._lock:
            if self._tokenizer is None or len(getattr(self._tokenizer, "cache", ())) > _MAX_CACHED_WORDS:
                self._tokenizer = _tokenizer_of(self._spec.name)
            tokens = self._tokenizer(list(captions))
        return self._in_parts(len(tokens), lambda start, stop, size: self._forward_text(tokens[start:stop]))

    def notes(self) -> list[str]:
        """Notes for the user, each returned once."""
        with self._lock:
            notes, self._notes = self._notes, []
        return notes

    def _in_parts(self, n: int, compute: Callable[[int, int, int], torch.Tensor]) -> npt.NDArray[np.float32]:
        """Unit rows of n inputs, as many at a time as fit; `compute` takes start, stop and the size of a full batch."""
        parts, start = [np.zeros((0, self.dim), np.float32)], 0
        while start < n:
            limit = self.limit  # read once: the other thread may lower it
            size, is_out_of_memory = min(limit or n, n - start), False
            try:
                parts.append(self._unit(compute(start, start + size, limit or self._largest_batch)))
            except torch.OutOfMemoryError:
                is_out_of_memory = True
            if is_out_of_memory:  # after the `except`, which keeps the failed tensors alive
                self._halve(size)
            else:
                start += size
        return np.concatenate(parts)

    def _probe(self) -> int:
        """Length of a vector, from one blank image."""
        shape: tuple[int, ...] = ()
        with _explained(self._spec):
            vectors = self._forward(self._blank(1))
            shape = tuple(vectors.shape)
        if len(shape) != 2 or not vectors.is_floating_point():
            height, width = self._preprocessing.height, self._preprocessing.width
            raise ConfigError(
                f"encoder.pretrained={self._spec.pretrained} makes {vectors.dtype} of shape {shape} of one image of {width} x {height}; "
                "expected one row of numbers per image"
            )
        return shape[1]

    def _forward(self, batch: npt.NDArray[np.uint8]) -> torch.Tensor:
        with torch.inference_mode(), self._guard(), self._stream():
            images = torch.from_numpy(np.require(batch, requirements=["C", "W"]))
            if self._device.type != "cpu":
                images = images.pin_memory().to(self._device, non_blocking=True)
            # in the order of torchvision's ToTensor and Normalize, so that float32 rounds the same
            pixels = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255.0)
            return torch.as_tensor(self.embed(pixels.sub_(self._mean).div_(self._std).to(self.dtype)))

    def _forward_text(self, tokens: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), self._guard():
            return torch.as_tensor(self.embed_text(tokens.to(self._device)))

    def _stream(self) -> contextlib.AbstractContextManager[Any]:
        """A stream per thread, so that one batch is copied while another is computed."""
        if self._device.type != "cuda" or not hasattr(self, "_streams"):
            return contextlib.nullcontext()
        if not hasattr(self._streams, "stream"):
            self._streams.stream = torch.cuda.Stream(self._device)
        context: contextlib.AbstractContextManager[Any] = torch.cuda.stream(self._streams.stream)
        return context

    def _guard(self) -> contextlib.AbstractContextManager[Any]:
        """Makes the device current: pinning memory and compiled kernels would otherwise start CUDA on the first GPU too."""
        return torch.cuda.device(self._device) if self._device.type == "cuda" else contextlib.nullcontext()

    @staticmethod
    def _unit(rows: torch.Tensor) -> npt.NDArray[np.float32]:
        """Rows of length 1; a zero row becomes NaN, as an overflowed one is."""
        with torch.inference_mode():
            rows = rows.to(torch.float32)
            norms = rows.norm(dim=1, keepdim=True)
            unit: npt.NDArray[np.float32] = (rows / norms.where(norms > 0, torch.nan)).cpu().numpy()
        return unit

    def _padded(self, batch: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
        """The batch, for a compiled model filled up with blank images: a new size would compile it again."""
        if not self._is_compiled:
            return batch
        self._largest_batch = max(self._largest_batch, len(batch))
        return np.concatenate([batch, self._blank(max(size, len(batch)) - len(batch))])

    def _blank(self, n: int) -> npt.NDArray[np.uint8]:
        return np.zeros((n, self._preprocessing.height, self._preprocessing.width, 3), dtype=np.uint8)

    def _halve(self, size: int) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if size == 1:
            raise StageError(
                f"{self.device} has no memory for one image of {self._spec.pretrained}; free some, or choose a smaller model or precision"
            )
        with self._lock:
            if self.limit and self.limit <= size // 2:
                return  # the other thread has halved it
            self.limit = size // 2
            self._notes.append(f"{self.device} ran out of memory at {size} images; batches of {self.limit} since then (embed.batch_size)")

    def _measure_batch_size(self) -> int:
        """A power of two that fits into the free memory, extrapolated from the peaks of two small batches."""
        peaks = []
        for n in (8, 32):
            torch.cuda.reset_peak_memory_stats(self._device)
            try:
                self._forward(self._blank(n))
            except torch.OutOfMemoryError:
                return max(1, n // 8)
            torch.cuda.synchronize(self._device)
            peaks.append(torch.cuda.max_memory_allocated(self._device))
        per_image = max(1.0, (peaks[1] - peaks[0]) / 24)
        # two batches are in flight in each of the processes that share the GPU
        fitting = _MEMORY_SHARE * torch.cuda.mem_get_info(self._device)[0] / per_image / 2 / gpu_sharers()
        return int(max(1, min(_MAX_BATCH, 2 ** int(np.log2(max(fitting, 1.0))))))


def _open_clip_model(spec: ModelSpec, precision: str, device: torch.device) -> Any:
    with _explained(spec):
        model = open_clip.create_model(
            spec.name, pretrained=spec.pretrained, precision=precision, device=device, weights_only=True, require_pretrained=True
        )
    return model.eval()


def _script(spec: ModelSpec, dtype: torch.dtype, device: torch.device) -> Any:
    with _explained(spec), warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)  # torch.jit is deprecated, but SSCD is published that way
        return torch.jit.load(spec.pretrained, map_location=device).eval().to(dtype)


def _tokenizer_of(name: str) -> Any:
    try:
        return open_clip.get_tokenizer(name)
    except ImportError as error:
        raise ConfigError(
            f"embed.text=true: the tokenizer of {name} needs the package '{error.name}'; run: pip install {error.name}"
        ) from error


@contextlib.contextmanager
def _explained(spec: ModelSpec) -> Iterator[None]:
    """Turns errors of torch and open_clip about the weights into one line that says what to do."""
    try:
        yield
    except (ConfigError, StageError):
        raise
    except torch.OutOfMemoryError as error:
        raise StageError(f"no memory for the weights of {spec.pretrained} on the GPU; free some, or choose a smaller model") from error
    except Exception as error:  # RuntimeError, KeyError, UnpicklingError, OSError and what a download raises
        text = " ".join(str(error).split())[:300]
        if "CUDA" in text or "NVIDIA" in text:  # the driver, not the file
            raise ConfigError(f"torch {torch.__version__} can't use the GPU: {text}; fix the driver, or set engine.device=cpu") from error
        what = "is not a TorchScript file" if not spec.name else f"does not fit the model {spec.description['model'].partition(' ')[2]}"
        step = "give the model it belongs to in encoder.model" if spec.name else "give a file saved by torch.jit.save"
        if not spec.is_file:
            what, step = "can't be fetched or does not fit", "download the checkpoint where there is a network and give its path"
        raise ConfigError(f"encoder.pretrained={spec.pretrained} {what}: {type(error).__name__}: {text}; {step}") from error
