"""The configuration: its keys, what they may be, and how they are read from files and command lines."""

from dedup.config.keys import BaseConfig as BaseConfig
from dedup.config.keys import Config as Config
from dedup.config.keys import ConfirmConfig as ConfirmConfig
from dedup.config.keys import EmbedConfig as EmbedConfig
from dedup.config.keys import EncoderConfig as EncoderConfig
from dedup.config.keys import EngineConfig as EngineConfig
from dedup.config.keys import ExcludeConfig as ExcludeConfig
from dedup.config.keys import ExtractionConfig as ExtractionConfig
from dedup.config.keys import GroupsConfig as GroupsConfig
from dedup.config.keys import IndexConfig as IndexConfig
from dedup.config.keys import InputConfig as InputConfig
from dedup.config.keys import KeepConfig as KeepConfig
from dedup.config.keys import OutputConfig as OutputConfig
from dedup.config.keys import ReportConfig as ReportConfig
from dedup.config.keys import SearchConfig as SearchConfig
from dedup.config.keys import TargetsConfig as TargetsConfig
