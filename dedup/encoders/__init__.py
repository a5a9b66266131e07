"""Encoders: decoded images to unit vectors."""

from __future__ import annotations

from dedup.config import EncoderConfig
from dedup.contracts import Encoder
from dedup.encoders.dct import DctEncoder
from dedup.errors import ConfigError
from dedup.numerics.looks import LookMaker, look_rows


def load_encoder(config: EncoderConfig) -> Encoder:
    """The encoder a configuration names.

    Raises
    ------
    ConfigError
        If there is no encoder of that name.
    """
    if config.name == "dct":
        return DctEncoder()
    raise ConfigError(f"encoder.name={config.name}: no such encoder; expected dct, which has images to encode")


def encoder_fingerprint(config: EncoderConfig) -> dict[str, str]:
    """Everything that changes the vectors, as far as the encoder knows."""
    if config.name == "precomputed":
        return {"model": "precomputed", "preprocessing": "rows of unit length, float16"}
    return load_encoder(config).fingerprint()


def look_maker(config: EncoderConfig) -> LookMaker | None:
    """What makes second looks of an encoder's vectors; None for an encoder that can't."""
    return look_rows if config.name == "dct" else None
