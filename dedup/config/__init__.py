"""The configuration: its keys, what they may be, and how they are read from files and command lines."""

from dedup.config.keys import (
    BaseConfig,
    Config,
    ConfirmConfig,
    EmbedConfig,
    EncoderConfig,
    EngineConfig,
    ExcludeConfig,
    ExtractionConfig,
    GroupsConfig,
    IndexConfig,
    InputConfig,
    KeepConfig,
    OutputConfig,
    ReportConfig,
    SearchConfig,
    TargetsConfig,
)

__all__ = [
    "BaseConfig",
    "Config",
    "ConfirmConfig",
    "EmbedConfig",
    "EncoderConfig",
    "EngineConfig",
    "ExcludeConfig",
    "ExtractionConfig",
    "GroupsConfig",
    "IndexConfig",
    "InputConfig",
    "KeepConfig",
    "OutputConfig",
    "ReportConfig",
    "SearchConfig",
    "TargetsConfig",
]
