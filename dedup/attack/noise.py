"""The text-conditional noise of a diffusion model: large where a prompt is memorised, and known without any training image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dedup.errors import ConfigError


class NoiseMeter:
    """Sums the text-conditional noise of a batch over the denoising steps.

    The magnitude is the mean over the steps of ‖ε(x, text) − ε(x, empty text)‖, the Euclidean norm over the latent x of the difference
    between the noise predicted with the text and without. After Wen et al. (2024), "Detecting, Explaining, and Mitigating Memorization in
    Diffusion Models", section 3.

    `n`: images of the batch.
    `model`: its name, for messages.
    """

    def __init__(self, n: int, model: str) -> None:
        self._n, self._model = n, model
        self._sum: Any = 0.0
        self._n_steps = 0

    def add(self, module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Take an output of the unet: a forward hook. Under guidance its first half is without the text, its second half with it.

        Raises ConfigError if it has not twice as many rows as there are images.
        """
        predicted = output[0]
        if len(predicted) != 2 * self._n:
            raise ConfigError(
                f"--noise: {self._model} computes {len(predicted)} outputs for {self._n} images; expected two for each, without the text "
                "and with it; leave out --noise"
            )
        # where the variance is learned too, it follows the noise
        without, with_text = predicted[:, : module.config.in_channels].float().chunk(2)
        self._sum = self._sum + (with_text - without).flatten(1).norm(dim=1)
        self._n_steps += 1

    def means(self) -> list[float]:
        """The magnitude of each image."""
        return [float(value) for value in (self._sum / self._n_steps).tolist()]


@contextmanager
def noise_of(pipeline: Any, n: int, model: str) -> Iterator[NoiseMeter]:
    """Measure the noise of the `n` images that a pipeline draws meanwhile."""
    meter = NoiseMeter(n, model)
    hook = pipeline.unet.register_forward_hook(meter.add)
    try:
        yield meter
    finally:
        hook.remove()


def check_predicts_noise(pipeline: Any, model: str) -> None:
    """Raise ConfigError unless a pipeline has a unet, and this predicts noise."""
    if getattr(pipeline, "unet", None) is None:
        raise ConfigError(
            f"--noise: expected a pipeline with a unet, found that {model} ({type(pipeline).__name__}) has none; leave out --noise"
        )
    predicted = pipeline.scheduler.config.get("prediction_type", "epsilon")
    if predicted != "epsilon":
        raise ConfigError(
            f"--noise: expected a model that predicts noise (epsilon), found that {model} predicts {predicted}; leave out --noise"
        )
