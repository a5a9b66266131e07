"""What commands share: options, their shell completion, and the session that a command works in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from dedup.config.key import STAGE_NAMES, did_you_mean
from dedup.errors import ConfigError

if TYPE_CHECKING:
    from dedup.config import Config
    from dedup.contracts import Engine, Reporter


def complete_setting(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Configuration keys that begin with the incomplete word, with their meanings; after an equals sign the shell offers files."""
    words = ctx.params.get("keys") or ctx.params.get("words") or ()
    return [] if _is_value(words, incomplete) else settings(incomplete)


def complete_lookup_setting(incomplete: str) -> list[tuple[str, str]]:
    """The same, for the sections that are not fixed by a finished run."""
    return _settings_of(incomplete, "encoder", "input", "engine")


def complete_engine_setting(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The same, for a command that reads the engine's section alone."""
    return [] if _is_value(ctx.params.get("keys") or (), incomplete) else _settings_of(incomplete, "engine")


def complete_scoring_setting(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The same, for the sections that scoring reads."""
    return [] if _is_value(ctx.params.get("keys") or (), incomplete) else _settings_of(incomplete, *SCORING)


def complete_stage(incomplete: str) -> list[str]:
    """Stages that begin with the incomplete word, or with what follows its last comma."""
    before, comma, beginning = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in STAGE_NAMES if name.startswith(beginning)]


def settings(incomplete: str) -> list[tuple[str, str]]:
    """Words to offer for the beginning of a key, with their meanings.

    If only one key matches, offer two words for it: the shell then completes to their common beginning, and adds no space.

    Examples
    --------
    >>> [word for word, _ in settings("search.m")]
    ['search.min_similarity=', 'search.method=']
    >>> [word for word, _ in settings("search.views")], [word for word, _ in settings("search.nl")]
    (['search.views=true', 'search.views=false'], ['search.nlist=', 'search.nlist=0'])
    """
    from dedup.config.keys import KEYS

    if "=" in incomplete:
        return []
    matches = [entry for name, entry in KEYS.items() if name.startswith(incomplete)]
    if len(matches) != 1:
        return [(f"{entry.name}=", entry.meaning) for entry in matches]
    key, default, meaning = matches[0].name, matches[0].default, matches[0].meaning
    if isinstance(default, bool):
        return [(f"{key}=true", meaning), (f"{key}=false", meaning)]
    value = "VALUE" if default in ("", []) or isinstance(default, list) else default
    return [(f"{key}=", meaning), (f"{key}={value}", meaning)]


def _settings_of(incomplete: str, *sections: str) -> list[tuple[str, str]]:
    return [setting for setting in settings(incomplete) if setting[0].partition(".")[0] in sections]


def _is_value(words: Sequence[str], incomplete: str) -> bool:
    """Whether the word follows an equals sign: bash passes `key=value` as three words."""
    return bool(words) and (words[-1] == "=" or (not incomplete and words[-1].count(".") == 1 and "=" not in words[-1]))


RunDir = Annotated[str, typer.Argument(help="the run directory of a finished run")]

Keys = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE...",
        help="configuration, such as search.min_similarity=0.8; `dedup config` lists all keys",
        autocompletion=complete_setting,
    ),
]

SCORING = ("extraction", "engine")  # sections that scoring reads

EngineKeys = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE...", help="keys of engine, such as engine.workers=4", autocompletion=complete_engine_setting),
]

ScoringKeys = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE...",
        help="keys of extraction or engine, such as extraction.min_clique=5",
        autocompletion=complete_scoring_setting,
    ),
]

_SAME = "the same as KEY=VALUE; may be given several times"

Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=_SAME, autocompletion=complete_setting)]
EngineSettings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=_SAME, autocompletion=complete_engine_setting)]
ScoringSettings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=_SAME, autocompletion=complete_scoring_setting)
]

LookupSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="a key of encoder, input or engine, instead of the run's own, such as engine.device=cpu; may be given several times",
        autocompletion=complete_lookup_setting,
    ),
]

ConfigFile = Annotated[str | None, typer.Option("--config", "-c", metavar="FILE", help="YAML file of configuration keys")]
Workers = Annotated[int | None, typer.Option("--workers", min=0, metavar="N", help="processes, as engine.workers=N; 0 = one per core")]
Redo = Annotated[bool, typer.Option("--redo", help="redo from the first stage whose configuration or input changed")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else on standard output")]

KeepList = Annotated[
    str,
    typer.Option("--keep-list", help="keep the samples in this list instead: .txt, .csv or .parquet of keys, urls or sha256, .npy of uids"),
]


def overrides_of(keys: Sequence[str] | None = None, settings: Sequence[str] | None = None, workers: int | None = None) -> list[str]:
    """Configuration keys given on a command line; later values win: --workers over --set over KEY=VALUE."""
    return [*(keys or []), *(settings or []), *([] if workers is None else [f"engine.workers={workers}"])]


def engine_keys(overrides: Sequence[str]) -> list[str]:
    """The overrides of section `engine`: all that a command needs for its engine if the rest of its configuration comes from a run."""
    return [text for text in overrides if text.startswith("engine.")]


def load(config_file: str | None, overrides: Sequence[str], run_dir: str = "") -> Config:
    """The configuration that a command line gives, for the run in `run_dir` if there is one."""
    from dedup.config.load import load_config

    return load_config(config_file, [*overrides, *([f"output.run_dir={run_dir}"] if run_dir else [])])


class Session(NamedTuple):
    """What a command works with."""

    config: Config
    engine: Engine
    reporter: Reporter


@contextmanager
def session(
    overrides: Sequence[str],
    config_file: str | None = None,
    *,
    run_dir: str = "",
    reads: Sequence[str] = ("engine",),
    count_gpus: Callable[[str], int] | None = None,
) -> Iterator[Session]:
    """A checked configuration, its engine (closed at the end), and a reporter that writes to standard error.

    `reads`: the sections that the command reads. An override of another is refused; a file may hold all, since a run may share it.
    `count_gpus`: gives, for `engine.device`, the processes for tasks that hold a model of their own.
    """
    from dedup.cli.show.run import ConsoleReporter
    from dedup.config.rules import validate
    from dedup.pipeline.run import make_engine

    config = load(config_file, overrides, run_dir)
    for key in (text.partition("=")[0] for text in overrides):
        if key.partition(".")[0] not in reads:
            raise ConfigError(f"{key} changes nothing here; expected a key of {' or '.join(reads)}; leave it out")
    validate(config)
    count = None if count_gpus is None else partial(count_gpus, config.engine.device)
    with closing(make_engine(config, count_gpus=count)) as engine, ConsoleReporter() as reporter:
        yield Session(config, engine, reporter)


def chosen_stages(only: str | None = None, first: str | None = None, last: str | None = None) -> tuple[str, ...]:
    """The stages that --only, --from and --until choose, in the order in which they run.

    Examples
    --------
    >>> chosen_stages(only="confirm,pairs"), chosen_stages(first="statistics"), chosen_stages(last="index")
    (('pairs', 'confirm'), ('statistics', 'targets'), ('embed', 'index'))
    """
    if only is not None:
        if first or last:
            raise ConfigError(f"--only and {'--from' if first else '--until'} can't be combined; leave one out")
        names = [_stage("--only", name.strip()) for name in only.split(",")]
        return tuple(name for name in STAGE_NAMES if name in names)
    begin = STAGE_NAMES.index(_stage("--from", first)) if first is not None else 0
    end = STAGE_NAMES.index(_stage("--until", last)) + 1 if last is not None else len(STAGE_NAMES)
    if begin >= end:
        raise ConfigError(f"--from {first} --until {last}: no stage is left; the order is {', '.join(STAGE_NAMES)}")
    return STAGE_NAMES[begin:end]


def _stage(option: str, name: str) -> str:
    if name not in STAGE_NAMES:
        raise ConfigError(f"{option}: unknown stage '{name}'; expected one of {', '.join(STAGE_NAMES)}{did_you_mean(name, STAGE_NAMES)}")
    return name
