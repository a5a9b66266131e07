"""Encoders: decoded images to unit vectors."""

from __future__ import annotations

from dedup.config import EncoderConfig
from dedup.config.encoders import encoder_kind
from dedup.encoders import dct
from dedup.encoders.encoder import Encoder
from dedup.errors import ConfigError, MissingExtra
from dedup.numerics.image.views import ViewMaker, view_rows


def load_encoder(config: EncoderConfig, device: str) -> Encoder:
    """The encoder a configuration names, on the GPU of the running task where it uses one; loaded once a process.

    `device`: `engine.device`; a descriptor is computed on the CPU whatever it says.
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
    """Everything that changes the vectors, as far as the encoder knows; no weights are loaded for it.

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
    """Sides an image may be reduced to while it is decoded for the vectors, in pixels; 0 where nothing is known."""
    return dct.MIN_SIDE if encoder_kind(config.name).is_descriptor else 0


def n_gpus(config: EncoderConfig, device: str) -> int:
    """GPUs of this machine that the encoder would use, `engine.device` being what it is."""
    if not encoder_kind(config.name).uses_gpu or device == "cpu":
        return 0
    from dedup.encoders.clip import n_gpus as found

    return found()


def view_maker(config: EncoderConfig) -> ViewMaker | None:
    """What makes second looks of an encoder's vectors; None for an encoder that can't."""
    return view_rows if encoder_kind(config.name).makes_views else None
