"""A configuration from paths and settings: what `dedup run photos/` and `dedup.run("photos")` do with them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from dedup.config import Config
from dedup.config.load import load_config
from dedup.storage.input.recognise import Recognised, recognise


def paths_and_settings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell paths and URLs from settings: a setting is ``key=value``, and no file has its name.

    Examples
    --------
    >>> paths_and_settings(["photos/", "search.nprobe=8", "s3://bucket/a.tar"])
    (['photos/', 's3://bucket/a.tar'], ['search.nprobe=8'])
    """
    settings = [word for word in words if "=" in word.partition("://")[0] and not os.path.exists(word)]
    return [word for word in words if word not in settings], settings


def config_for(paths: Sequence[str], config_file: str | None = None, overrides: Sequence[str] = ()) -> tuple[Config, Recognised | None]:
    """The configuration that reads some paths, and what was found there; without paths the settings alone.

    The run directory is named after the first path, in the working directory, unless the settings name another.
    Raises ConfigError or InputError; see `recognise` and `load_config`.
    """
    if not paths:
        return load_config(config_file, overrides), None
    found = recognise(paths)
    config = load_config(config_file, [*found.overrides, *overrides])
    if not config.output.run_dir:
        config = replace(config, output=replace(config.output, run_dir=f"{found.name}-dedup"))
    return config, found
