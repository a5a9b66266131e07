"""Encoders: decoded images to unit vectors."""

from __future__ import annotations

from dedup.config import EncoderConfig
from dedup.contracts import Encoder
from dedup.encoders.dct import DctEncoder
from dedup.errors import ConfigError


def load_encoder(config: EncoderConfig) -> Encoder:
    """The encoder a configuration names.

    Raises
    ------
    ConfigError
        If there is no encoder of that name.
    """
    if config.name == "dct":
        return DctEncoder()
    raise ConfigError(f"encoder.name={config.name}: no such encoder; expected dct")
