"""Encoders: decoded images to unit vectors."""

from __future__ import annotations

from dedup.config import EncoderConfig
from dedup.config.encoders import encoder_kind
from dedup.encoders import dct
from dedup.encoders.encoder import Encoder
from dedup.errors import ConfigError, MissingExtra
from dedup.numerics.image.views import ViewMaker, view_rows


def load_encoder(config: EncoderConfig, device: str) -> Encoder:
    """The configured encoder, on the GPU of the running task if it uses one; loaded once per process.

    `device`: `engine.device`; a descriptor is computed on the CPU regardless.
    Raises MissingExtra if torch or open_clip is not installed.
    Raises ConfigError if the model can't be loaded, or there is no device of that kind.
    """
    kind = encoder_kind(config.name)
    if kind.needs_weights:
        try:
            from dedup.encoders.clip import load_clip
        except ImportError as error:
            raise MissingExtra(error.name or "torch", "clip") from error
        return load_clip(config, device)
    if kind.is_descriptor:
        return dct.DctEncoder()
    raise ConfigError(f"encoder.name={config.name} encodes no images; expected dct, clip or torchscript")


def encoder_fingerprint(config: EncoderConfig) -> dict[str, str]:
    """Everything about the encoder that changes the vectors; no weights are loaded.

    Raises MissingExtra if torch or open_clip is not installed.
    Raises ConfigError if there is no such model, tag or file.
    """
    kind = encoder_kind(config.name)
    if kind.needs_weights:
        try:
            from dedup.encoders.clip_models import find_model
        except ImportError as error:
            raise MissingExtra(error.name or "torch", "clip") from error
        return find_model(config).fingerprint()
    if not kind.has_images:
        return {"model": "precomputed", "preprocessing": "rows of unit length, float16"}
    return dct.fingerprint()


def decoded_side(config: EncoderConfig) -> int:
    """Pixels to which an image's sides may be reduced while it is decoded for the vectors; 0 if unknown."""
    return dct.MIN_SIDE if encoder_kind(config.name).is_descriptor else 0


def n_gpus(config: EncoderConfig, device: str) -> int:
    """GPUs of this machine that the encoder would use; `device` is `engine.device`."""
    if not encoder_kind(config.name).uses_gpu or device == "cpu":
        return 0
    from dedup.encoders.clip import n_gpus as count_gpus

    return count_gpus()


def view_maker(config: EncoderConfig) -> ViewMaker | None:
    """The function that makes views of an encoder's images; None for an encoder without views."""
    return view_rows if encoder_kind(config.name).makes_views else None
