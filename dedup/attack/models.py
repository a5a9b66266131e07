"""Text-to-image pipelines of diffusers, loaded from a folder or by name."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final

from dedup.errors import ConfigError, MissingExtra, StageError
from dedup.machine import task_cores
from dedup.storage.input.samples import one_line
from dedup.text import printable

_PACKAGES: Final = ("torch", "diffusers", "transformers")
_INDEX: Final = "model_index.json"
_EXPECTED: Final = f"expected a folder with {_INDEX}, as save_pretrained of diffusers writes it, or the name of a diffusers model"
_LONGEST: Final = 120  # characters of what a download says


def n_processes(device: str) -> int:
    """Processes that hold a model on this machine: one for each GPU, or one on all cores.

    `device`: `engine.device`.
    Raises MissingExtra if a package is not installed.
    """
    require_packages()
    import torch

    return 1 if device == "cpu" else max(1, int(torch.cuda.device_count()))


def require_packages() -> None:
    """Raise MissingExtra unless the packages that a pipeline needs are installed; none is imported."""
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "extraction")


@lru_cache(maxsize=1)
def load_pipeline(model: str, dtype: str, device: str) -> Any:
    """A pipeline, ready to be called; loaded once per process.

    `model`: folder that a pipeline was saved in, or the name of a diffusers model.
    `dtype`: ``fp16`` or ``fp32``.
    `device`: torch's name: ``cpu``, ``cuda:0``.
    Raises ConfigError if there is no such model, or it can't be loaded.
    Raises StageError if a GPU has no memory for it.
    """
    import torch

    if os.path.exists(model):
        _check_folder(model)
    if device == "cpu":
        torch.set_num_threads(task_cores())
    with _explained(model):
        diffusion_pipeline = _imported()
        with quiet():
            pipeline = diffusion_pipeline.from_pretrained(model, torch_dtype={"fp16": torch.float16, "fp32": torch.float32}[dtype])
            pipeline = pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _imported() -> Any:
    """The class that loads a pipeline of any kind; no library draws bars from now on, which those of other processes would overwrite."""
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging as of_diffusers
    from tqdm import tqdm
    from transformers.utils import logging as of_transformers

    for library in (of_diffusers, of_transformers):
        library.disable_progress_bar()
    tqdm.set_lock(threading.RLock())  # by default one of all processes, which a worker that is stopped leaves behind
    return DiffusionPipeline


@contextmanager
def quiet() -> Iterator[None]:
    """Say nothing of prompts that are cut, black images and outdated configurations, which would come for each batch or file."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


def _check_folder(model: str) -> None:
    """Whether all parts of a saved pipeline are there: diffusers tells of one that is missing in many lines."""
    if not os.path.isdir(model):
        raise ConfigError(f"--model={model} is a file; {_EXPECTED}; convert it with from_single_file and save_pretrained")
    path = os.path.join(model, _INDEX)
    if not os.path.exists(path):
        found = ", ".join(sorted(os.listdir(model))[:4]) or "nothing"
        raise ConfigError(f"--model={model} has no {_INDEX}; {_EXPECTED}; found {found}; give the folder of the whole pipeline")
    parts = _parts(path)
    for name in ("scheduler", *parts):
        if name not in parts:
            raise ConfigError(f"{path} names no {name}; expected one, as every pipeline of diffusers has; save the model again")
        if not os.path.isdir(os.path.join(model, name)):
            raise ConfigError(f"--model={model} has no folder {name}, which its {_INDEX} names; save or download the whole model again")


def _parts(path: str) -> list[str]:
    """Names of the parts of a pipeline, from its index: those with a library and a class."""
    try:
        with open(path, encoding="utf-8") as file:
            index = json.load(file).items()
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} can't be read: {one_line(error)}; expected a JSON object; save or download the model again") from error
    named = [(name, value) for name, value in index if not name.startswith("_") and isinstance(value, list) and len(value) == 2]
    return [name for name, value in named if all(isinstance(word, str) for word in value)]


@contextmanager
def _explained(model: str) -> Iterator[None]:
    """Turns what loading raises into one line that says what to do."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise StageError(f"no memory for {model} on the GPU; end what else uses it, choose --dtype fp16 or a smaller model") from error
    except Exception as error:  # OSError, ValueError, ImportError, RuntimeError and what a download raises
        if os.path.isdir(model):
            raise ConfigError(f"--model={model} can't be loaded: {one_line(error)}; save or download the model again") from error
        reason = printable(one_line(error), _LONGEST)
        raise ConfigError(
            f"--model={model} is no folder here, and can't be fetched ({reason}); {_EXPECTED}; download the model where there is a "
            "network, and give its folder"
        ) from error
