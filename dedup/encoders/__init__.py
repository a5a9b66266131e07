"""Encoders: decoded images to unit vectors."""

from __future__ import annotations

from dedup.config import EncoderConfig
from dedup.contracts import Encoder
from dedup.encoders import dct
from dedup.errors import ConfigError, MissingExtra
from dedup.numerics.looks import LookMaker, look_rows

_NEURAL = ("clip", "torchscript")


def load_encoder(config: EncoderConfig) -> Encoder:
    """The encoder a configuration names, on the GPU of the running task where it uses one; loaded once a process.

    Raises
    ------
    MissingExtra
        If torch or open_clip is not installed.
    ConfigError
        If the model can't be loaded, or there is no device of that kind.
    """
    if config.name in _NEURAL:
        try:
            from dedup.encoders.clip import load_clip
        except ImportError as error:
            raise MissingExtra(error.name or "torch", "clip") from error
        return load_clip(config)
    if config.name == "dct":
        return dct.DctEncoder()
    raise ConfigError(f"encoder.name={config.name} encodes no images; expected dct, clip or torchscript")


def encoder_fingerprint(config: EncoderConfig) -> dict[str, str]:
    """Everything that changes the vectors, as far as the encoder knows; no weights are loaded for it.

    Raises
    ------
    MissingExtra
        If torch or open_clip is not installed.
    ConfigError
        If there is no such model, tag or file.
    """
    if config.name in _NEURAL:
        try:
            from dedup.encoders.clip_models import find_model
        except ImportError as error:
            raise MissingExtra(error.name or "torch", "clip") from error
        return find_model(config).fingerprint()
    if config.name == "precomputed":
        return {"model": "precomputed", "preprocessing": "rows of unit length, float16"}
    return dct.fingerprint()


def decoded_side(config: EncoderConfig) -> int:
    """Sides an image may be reduced to while it is decoded for the vectors, in pixels; 0 where nothing is known."""
    return dct.MIN_SIDE if config.name == "dct" else 0


def n_gpus(config: EncoderConfig) -> int:
    """GPUs of this machine that the encoder would use."""
    if config.name not in _NEURAL or config.device == "cpu":
        return 0
    from dedup.encoders.clip import n_gpus as found

    return found()


def look_maker(config: EncoderConfig) -> LookMaker | None:
    """What makes second looks of an encoder's vectors; None for an encoder that can't."""
    return look_rows if config.name == "dct" else None
