"""Images of prompts and seeds, drawn in batches by a pipeline of diffusers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from dedup.attack.models import load_pipeline, quiet, require_packages
from dedup.attack.noise import check_predicts_noise, noise_of
from dedup.errors import ConfigError, StageError
from dedup.numerics.arraytypes import Pixels
from dedup.numerics.search.gpu import choose_device

DTYPES: Final = ("auto", "fp16", "fp32")

_TAKEN: Final = {"prompt", "num_inference_steps", "guidance_scale", "generator", "height", "width"}
_MULTIPLE: Final = 8  # pixels to a side that one value of the latent stands for


@dataclass(frozen=True)
class Drawing:
    """What an image depends on, besides its prompt and its seed.

    Raises ConfigError for values that can't work.
    """

    model: str  # folder that a pipeline was saved in, or the name of a diffusers model
    steps: int = 50  # denoising steps
    guidance: float = 7.5  # scale of classifier-free guidance; up to 1 there is none
    height: int = 0  # pixels; 0 = the model's own
    width: int = 0  # pixels; 0 = the model's own
    dtype: str = "auto"  # one of DTYPES; auto = fp16 on a GPU, fp32 on a CPU
    noise: bool = False  # whether to measure the text-conditional noise

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"--steps={self.steps}; expected 1 or more")
        if self.dtype not in DTYPES:
            raise ConfigError(f"--dtype={self.dtype}; expected one of {', '.join(DTYPES)}")
        for name, side in (("height", self.height), ("width", self.width)):
            if side < 0 or side % _MULTIPLE:
                raise ConfigError(f"--{name}={side}; expected a multiple of {_MULTIPLE}, or 0 for the model's own")
        if self.noise and self.guidance <= 1:
            raise ConfigError(
                f"--noise needs the model's output with the text and without, which it computes only under guidance; expected --guidance "
                f"above 1, found {self.guidance:g}; raise it, or leave out --noise"
            )


class Picture(NamedTuple):
    """One image."""

    pixels: Pixels  # shape (height, width, 3)
    is_flagged: bool  # by the pipeline's safety filter
    noise: float | None  # magnitude of the text-conditional noise


def load_painter(drawing: Drawing, batch: int, device: str) -> Painter:
    """The model on the device of the running task.

    `batch`: images at a time.
    `device`: `engine.device`.
    Raises MissingExtra if a package is not installed.
    Raises ConfigError if there is no such model or device, or the model can't do what is asked of it.
    """
    require_packages()
    chosen = choose_device(device)
    name = "cpu" if chosen is None else chosen.name
    if drawing.dtype == "fp16" and name == "cpu":
        raise ConfigError("--dtype=fp16: expected a GPU, found none; choose --dtype fp32")
    dtype = ("fp32" if name == "cpu" else "fp16") if drawing.dtype == "auto" else drawing.dtype
    return Painter(load_pipeline(drawing.model, dtype, name), drawing, batch, name)


class Painter:
    """Draws images with a pipeline. If a GPU runs out of memory, batches are halved until they fit.

    `pipeline`: a text-to-image pipeline of diffusers.
    `batch`: images at a time.
    `device`: the pipeline's, for messages.
    Raises ConfigError if the pipeline can't do what is asked of it.
    """

    def __init__(self, pipeline: Any, drawing: Drawing, batch: int, device: str) -> None:
        self._pipeline, self._drawing, self._device = pipeline, drawing, device
        self.batch = batch
        self.notes: list[str] = []  # for the user
        self._settings = {"num_inference_steps": drawing.steps, "guidance_scale": drawing.guidance}
        self._settings |= {name: side for name, side in (("height", drawing.height), ("width", drawing.width)) if side}
        if missing := sorted(_TAKEN - set(inspect.signature(pipeline.__call__).parameters)):
            raise ConfigError(
                f"--model={drawing.model} is a {type(pipeline).__name__}, which takes no {', '.join(missing)}; expected a model that makes "
                "images of texts; give another"
            )
        if drawing.noise:
            check_predicts_noise(pipeline, drawing.model)

    def is_cut(self, prompt: str) -> bool:
        """Whether a prompt is longer than the model's text encoder reads, so that its end has no effect."""
        tokenizer = getattr(self._pipeline, "tokenizer", None)
        if tokenizer is None:
            return False
        with quiet():
            return len(tokenizer(prompt, truncation=False).input_ids) > int(tokenizer.model_max_length)

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> Iterator[Picture]:
        """An image for each prompt and seed, in order.

        Each has a random generator of its own, on the CPU: its noise depends neither on the device nor on the batch.

        Raises StageError if a GPU has no memory for one image.
        """
        import torch

        start = 0
        while start < len(seeds):
            pictures: list[Picture] = []
            stop = min(start + self.batch, len(seeds))
            with suppress(torch.OutOfMemoryError):
                pictures = self._draw(prompts[start:stop], seeds[start:stop])
            if pictures:
                yield from pictures
                start = stop
            else:
                self._halve(stop - start)

    def _draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Picture]:
        import torch

        n, drawing = len(seeds), self._drawing
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        # numpy would warn where half precision has overflowed; such an image has one colour, and is counted
        with (
            quiet(),
            np.errstate(invalid="ignore"),
            noise_of(self._pipeline, n, drawing.model) if drawing.noise else nullcontext() as noise,
        ):
            drawn = self._pipeline(prompt=list(prompts), generator=generators, **self._settings)
        flags = getattr(drawn, "nsfw_content_detected", None) or [False] * n
        magnitudes = [None] * n if noise is None else noise.means()
        pixels = [np.asarray(image.convert("RGB")) for image in drawn.images]
        return [Picture(*parts) for parts in zip(pixels, map(bool, flags), magnitudes, strict=True)]

    def _halve(self, size: int) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if size == 1:
            raise StageError(
                f"{self._device} has no memory for one image of {self._drawing.model}; expected room for one at a time; end what else uses "
                "the GPU, or choose --dtype fp16, or a smaller --height and --width, then run the same command again"
            )
        self.batch = size // 2
        self.notes.append(f"{self._device} ran out of memory at {size} images; batches of {self.batch} since then (--batch)")
