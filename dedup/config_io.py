"""Loading and checking a configuration: defaults, then a YAML file, then ``key=value`` overrides."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import yaml
from omegaconf import Container, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dedup import schemas
from dedup.config import MIN_SIMILARITY, Config
from dedup.errors import ConfigError

ENCODERS: Final = tuple(MIN_SIMILARITY)
ENGINES: Final = ("local", "spark")
UNREADABLE: Final = ("refuse", "keep")
PRECISIONS: Final = ("auto", "fp32", "fp16", "bf16")
DEVICES: Final = ("auto", "cpu", "cuda")
RANKINGS: Final = ("duplicates", "neighbors", "caption")
NORMALIZATIONS: Final = ("imagenet", "clip", "half")
METHODS: Final = ("lists", "ivfpq")
PREFLIGHTS: Final = ("refuse", "warn")
SWITCHES: Final = ("auto", "true", "false")
INDEX_CODES: Final = ("auto", "pq", "fp16", "none")
ORDER_COLUMNS: Final = ("width", "height", "width*height", "n_bytes", "quality", "caption_similarity", "sample_id", "key", "shard")

_SECTIONS: Final = typing.get_type_hints(Config)
_HINT: Final = "run `dedup config` for all keys"
_COMMA_LISTS: Final = ("keep.order_by", "input.carry", "embed.also", "targets.language")
_SWITCH_KEYS: Final = ("embed.thumbnails", "engine.sends_rows")  # true, false or auto: YAML's yes and True mean true
_TYPE_NAMES: Final = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list[str]: "a list of texts"}
_BOOLS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_RANGES: Final = {
    (1, math.inf): "input.max_pixels input.max_image_bytes embed.shards_per_partition embed.images_per_partition encoder.image_size "
    "index.train_vectors_per_list index.train_iterations keep.per_component targets.top extraction.targets_per_part",
    (
        0,
        math.inf,
    ): "embed.batch_size embed.decode_threads search.exhaustive_below engine.workers engine.gpus_per_task components.max_local_edges",
    (-1, math.inf): "search.recall_queries",
    (0, 2**31): "targets.min_caption_length targets.max_caption_length targets.images_per_second",
    (1, 2**31 - 1): "targets.n_generations",
    (0, 2**31 - 1): "search.nlist search.nprobe search.best_edges index.seed",
    (0, 1): "targets.max_punsafe confirm.max_distance extraction.max_tile_distance extraction.max_distance",
    (2, math.inf): "extraction.min_clique",
    (8, 4096): "extraction.max_side",
    (0, 4096): "confirm.reconnect",
    (0, 100): "search.low_detail_quality search.flat_quality",
}


class Key(NamedTuple):
    """A configuration key as documentation shows it."""

    key: str
    type: str
    default: Any
    meaning: str


def describe() -> list[Key]:
    """List every key in the order of the dataclasses."""
    keys = []
    for section, cls in _SECTIONS.items():
        defaults, types = cls(), typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            kind = types[field.name]
            name = kind.__name__ if isinstance(kind, type) and kind is not list[str] else str(kind)
            keys.append(Key(f"{section}.{field.name}", name, getattr(defaults, field.name), field.metadata["meaning"]))
    return keys


def to_dict(config: Config) -> dict[str, dict[str, Any]]:
    """Give every value as plain data: section to key to value."""
    return dataclasses.asdict(config)


def from_dict(values: Mapping[str, Mapping[str, Any]]) -> Config:
    """A configuration from plain data, as `to_dict` gives it; keys of other versions are left out, missing ones have their defaults."""
    known = to_dict(Config())
    for section, keys in known.items():
        keys |= {name: value for name, value in values.get(section, {}).items() if name in keys}
    return Config(**{section: cls(**known[section]) for section, cls in _SECTIONS.items()})


def load_config(path: str | None, overrides: Sequence[str] = ()) -> Config:
    """Build a configuration from the defaults, a YAML file and overrides, each over the one before.

    Parameters
    ----------
    path : str or None
        YAML file of sections and keys; values may use OmegaConf's ``${…}``.
    overrides : sequence of str
        ``section.key=value``. Text stands for itself: it is never parsed as YAML. A key that holds a list takes one
        entry per override, the first of which replaces what the file says; `keep.order_by` and `input.carry` take
        ``a,b`` or ``[a, b]``.

    Raises
    ------
    ConfigError
        If the file can't be read, a key is unknown or a value has the wrong type.

    Examples
    --------
    >>> load_config(None, ["search.nprobe=8", "input.shards={000..099}.tar"]).input.shards
    ['{000..099}.tar']
    """
    values = to_dict(Config()) if path is None else _read_yaml(path)
    given: set[str] = set()
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"'{override}' is no setting; expected section.key=value, such as search.nprobe=8; {_HINT}")
        _require_known(key)
        section, _, name = key.partition(".")
        value = _parse(key, _kind(key), text)
        if isinstance(value, list) and key in given:
            value = [*values[section][name], *value]
        given.add(key)
        values[section][name] = value
    for key in _SWITCH_KEYS:
        section, _, name = key.partition(".")
        text = str(values[section][name]).lower()
        values[section][name] = str(_BOOLS.get(text, text)).lower()
    return Config(**{section: cls(**values[section]) for section, cls in _SECTIONS.items()})


_ADDRESSES = (
    "input.shards", "input.images", "input.embeddings", "input.captions", "output.run_dir", "base.run_dir",
    "reference.shards", "reference.images", "exclude.list", "encoder.pretrained",
)  # fmt: skip
_PASSWORD = re.compile(r"://[^\s/@:]*:[^\s/@]+@")


def validate(config: Config, *, require_input: bool = False) -> None:
    """Refuse values that can't work, before any work is done.

    Parameters
    ----------
    config : Config
    require_input : bool
        Whether `input.shards` or `input.images` must be set.

    Raises
    ------
    ConfigError
        Naming the key, what was expected, what was found and what to do.
    """
    values = {f"{section}.{name}": value for section, keys in to_dict(config).items() for name, value in keys.items()}
    for key in _ADDRESSES:
        if any(_PASSWORD.search(address) for address in ([values[key]] if isinstance(values[key], str) else values[key])):
            raise ConfigError(
                f"{key} holds a password, which would stand in every table; expected an address without one: give credentials by the "
                "environment, or in fsspec's own configuration (~/.config/fsspec)"
            )
    for key in ("search.min_similarity", "search.also_min_similarity", "search.look_min_similarity", "search.low_detail_min_similarity"):
        if not 0 < values[key] <= 1 and not (key in ("search.min_similarity", "search.also_min_similarity") and values[key] == 0):
            raise ConfigError(f"{key}={values[key]} is no similarity to ask for; expected more than 0 and at most 1, such as 0.9")
    for key, low, high in ((key, low, high) for (low, high), keys in _RANGES.items() for key in keys.split()):
        if not low <= values[key] <= high:
            limits = f"{low} or more" if high == math.inf else f"{low} to {high}"
            raise ConfigError(f"{key}={values[key]} is out of range; expected {limits}; {_HINT}")
    if config.engine.gpus_per_task > 1 and config.engine.gpus_per_task % 1:
        raise ConfigError(f"engine.gpus_per_task={config.engine.gpus_per_task} is no number of GPUs; expected at most 1, or a whole number")
    if 0 < config.search.nlist < config.search.nprobe:
        pair = f"search.nprobe={config.search.nprobe} exceeds search.nlist={config.search.nlist}"
        raise ConfigError(f"{pair}; lower nprobe or train more lists")
    choices = {"encoder.name": ENCODERS, "index.codes": INDEX_CODES, "engine.name": ENGINES, "search.device": DEVICES}
    choices |= {"search.method": METHODS, "confirm.unreadable": UNREADABLE, "embed.thumbnails": SWITCHES, "engine.sends_rows": SWITCHES}
    choices |= {"engine.preflight": PREFLIGHTS}
    choices |= {
        "targets.rank_by": RANKINGS,
        "encoder.precision": PRECISIONS,
        "encoder.device": DEVICES,
        "extraction.device": DEVICES,
        "encoder.normalization": NORMALIZATIONS,
    }
    for key, known in choices.items():
        if values[key] not in known:
            raise ConfigError(f"{key}={values[key]} is unknown; expected {' or '.join(known)}{_nearest(str(values[key]), known)}")
    if not re.fullmatch(r"(?=.*[1-9])[0-9]+(\.[0-9]+)?\s*[kmgt]i?b", config.engine.memory_limit, re.IGNORECASE):
        raise ConfigError(f"engine.memory_limit={config.engine.memory_limit} is no size; expected a number and a unit, such as 4GB")
    if config.search.method == "ivfpq" and config.base.run_dir:
        raise ConfigError("search.method=ivfpq looks every image up, those of base.run_dir too; expected search.method=lists with a base")
    factory = config.index.factory
    if config.search.method == "ivfpq" and config.index.codes == "none" and not factory:
        raise ConfigError("search.method=ivfpq searches the index, which index.codes=none leaves out; expected pq, fp16 or auto")
    if factory and not re.search(r"(^|,)IVF(\d+|\{nlist\})", factory):
        raise ConfigError(f"index.factory={factory} has no inverted lists; expected such as IVF{{nlist}},Flat or OPQ64,IVF{{nlist}},PQ64")
    if set(config.output.run_dir) & set("*?["):
        raise ConfigError(f"output.run_dir={config.output.run_dir} looks like a pattern; choose a name without *, ? and [")
    if config.keep.prefer_base and not config.base.run_dir:
        raise ConfigError("keep.prefer_base=true without base.run_dir, whose keepers it would keep; set that, or leave it out")
    _validate_encoder(config, require_input)
    _validate_input(config, require_input)
    _validate_order(config.keep.order_by, config.input.carry)
    _validate_targets(config)


def resolved(config: Config) -> Config:
    """The configuration with what depends on other keys filled in: the threshold that suits the encoder."""
    search = config.search
    own = search.min_similarity or MIN_SIMILARITY[config.encoder.name]
    also = search.also_min_similarity or (MIN_SIMILARITY[config.embed.also[0]] if config.embed.also else 0.0)
    return dataclasses.replace(config, search=dataclasses.replace(search, min_similarity=own, also_min_similarity=also))


def _validate_encoder(config: Config, is_embedding: bool) -> None:
    encoder = config.encoder
    if is_embedding and encoder.name in ("clip", "torchscript") and not encoder.pretrained:
        what = "a pretrained tag of the model or a checkpoint" if encoder.name == "clip" else "the path of a TorchScript file"
        raise ConfigError(f"encoder.pretrained is not set; expected {what}; vectors of random weights find nothing")
    if encoder.name == "torchscript" and encoder.compile:
        raise ConfigError("encoder.compile=true with encoder.name=torchscript, which torch can't compile; leave it out")
    if config.embed.also:
        if config.embed.also != ["dct"]:
            raise ConfigError(f"embed.also={','.join(config.embed.also)} is no second source of candidates; expected dct, or nothing")
        if encoder.name not in ("clip", "torchscript"):
            raise ConfigError(f"embed.also=dct with encoder.name={encoder.name}; expected encoder.name=clip or torchscript beside it")
        if not config.confirm.enabled:
            raise ConfigError(
                "embed.also=dct with confirm.enabled=false; its candidates need a look at their pixels: leave one of them out"
            )
    if config.embed.text and encoder.name != "clip":
        raise ConfigError(f"embed.text=true with encoder.name={encoder.name}, which knows no text; expected encoder.name=clip")
    if "caption_similarity" in " ".join(config.keep.order_by) and not config.embed.text:
        raise ConfigError("keep.order_by names caption_similarity, which is measured with embed.text=true; set that, or leave it out")


def _validate_input(config: Config, require_input: bool) -> None:
    shards, images, embeddings = config.input.shards, config.input.images, config.input.embeddings
    given = [f"input.{name}={value}" for name, value in (("shards", shards[:1]), ("images", images), ("embeddings", embeddings)) if value]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} are set; expected one of them; leave the others out")
    if require_input and not given:
        raise ConfigError("no input is set; expected input.shards='DIR/*.tar', input.images=DIR or input.embeddings=DIR; add one of them")
    if given and (config.encoder.name == "precomputed") != bool(embeddings):
        raise ConfigError(
            f"encoder.name={config.encoder.name} with {given[0]}; expected encoder.name=precomputed with input.embeddings=DIR"
        )
    if config.input.captions and not images:
        raise ConfigError("input.captions is set without input.images, which it belongs to; for shards use input.sidecar=true")
    taken = {name.lower() for table in ("manifest", "duplicates", "excluded") for name in schemas.TABLES[table].names}
    for name in config.input.carry:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ConfigError(f"input.carry: '{name}' is no column name; expected letters, digits and '_', such as punsafe")
        if name.lower() in taken:
            raise ConfigError(f"input.carry names '{name}', which the tables have already, or twice; leave it out")
        taken.add(name.lower())


def _validate_order(order_by: Sequence[str], carry: Sequence[str]) -> None:
    allowed = [*ORDER_COLUMNS, *carry]
    if not order_by:
        raise ConfigError(f"keep.order_by is empty; expected one or more of {', '.join(allowed)}; leave the key out for the default")
    for term in order_by:
        name, _, direction = term.strip().partition(" ")
        if name not in allowed:
            raise ConfigError(f"keep.order_by: unknown column in '{term}'; expected one of {', '.join(allowed)}{_nearest(name, allowed)}")
        if direction.strip().lower() not in ("", "asc", "desc"):
            raise ConfigError(f"keep.order_by: unknown direction in '{term}'; expected '{name} asc' or '{name} desc'")


def _validate_targets(config: Config) -> None:
    targets, carry = config.targets, config.input.carry
    if 0 < targets.max_caption_length < targets.min_caption_length:
        raise ConfigError(
            f"targets.max_caption_length={targets.max_caption_length} is below targets.min_caption_length={targets.min_caption_length}; "
            "no caption passes: raise the one or lower the other"
        )
    asked = [("targets.language", targets.language_column)] if targets.language else []
    asked += [("targets.max_punsafe", "punsafe")] if targets.max_punsafe < 1 else []
    for key, column in asked:
        if column not in carry:
            raise ConfigError(f"{key} needs the column {column}, which is not carried; add it to input.carry, where the shards have it")
    for language in targets.language:
        if not re.fullmatch(r"[A-Za-z][A-Za-z_-]*", language):
            raise ConfigError(f"targets.language: '{language}' is no language; expected letters, such as en")


def _read_yaml(path: str) -> dict[str, dict[str, Any]]:
    """Defaults with a file's values over them; OmegaConf reads the YAML, resolves ``${…}`` and converts the types."""
    try:
        loaded = OmegaConf.load(path)
        if not isinstance(loaded, DictConfig):
            raise ConfigError(f"expected sections such as 'search:', found a {type(OmegaConf.to_container(loaded)).__name__}; {_HINT}")
        _check_keys(loaded)
        plain = OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(Config), loaded), resolve=True)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}, line {line}: broken YAML: {error.problem or error.context}; mend that line") from error
    except OmegaConfBaseException as error:
        key = str(error.full_key or "")
        kind = _kind(key.partition("[")[0])
        expected = f": expected {_TYPE_NAMES[str if '[' in key else kind]}" if kind else ""
        raise ConfigError(f"{path}: {key}{expected}: {str(error).splitlines()[0]}; {_HINT}") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error).replace("\n", " ")
        raise ConfigError(f"the configuration file {path} can't be read: {reason}; give -c the path of a YAML file") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return typing.cast("dict[str, dict[str, Any]]", plain)


def _check_keys(loaded: DictConfig) -> None:
    """Refuse what is no key; a single text where a list belongs becomes a list of one."""
    for section, entries in ((str(key), node) for key, node in loaded.items_ex(resolve=False)):
        if section not in _SECTIONS:
            outer, dot, inner = section.partition(".")
            if dot:
                raise ConfigError(f"unknown section '{section}'; write '{inner}:' under '{outer}:'; {_HINT}")
            raise _unknown("section", section, list(_SECTIONS))
        if not isinstance(entries, DictConfig):
            raise ConfigError(f"section '{section}': expected keys and values, found {entries!r}; {_HINT}")
        for name, value in entries.items_ex(resolve=False):
            key = f"{section}.{name!s}"
            _require_known(key)
            if _kind(key) == list[str]:
                nodes = value._iter_ex(resolve=False) if isinstance(value, ListConfig) else [value]
                if any(isinstance(node, Container) for node in nodes):
                    raise _type_error(key, list[str], OmegaConf.to_container(value))
                if not isinstance(value, ListConfig):
                    entries[name] = [value]


def _parse(key: str, kind: Any, text: str) -> Any:
    """Give the text of an override the type of its key."""
    if kind is str:
        return text
    if kind == list[str]:
        if key not in _COMMA_LISTS:
            return [text] if text else []
        inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        return [" ".join(entry.split()) for entry in inner.split(",") if entry.strip()]
    with contextlib.suppress(KeyError, ValueError, OverflowError):
        value = _BOOLS[text.lower()] if kind is bool else kind(text)
        if math.isfinite(value):
            return value
    raise _type_error(key, kind, text)


def _type_error(key: str, kind: Any, found: Any) -> ConfigError:
    return ConfigError(f"{key}: expected {_TYPE_NAMES[kind]}, found {found!r}; {_HINT}")


def _kind(key: str) -> Any:
    """Type of a key, None for an unknown one."""
    section, _, name = key.partition(".")
    return typing.get_type_hints(_SECTIONS[section]).get(name) if section in _SECTIONS else None


def _require_known(key: str) -> None:
    if _kind(key) is None:
        raise _unknown("key", key, [entry.key for entry in describe()])


def _unknown(what: str, word: str, known: Sequence[str]) -> ConfigError:
    nearest = _nearest(word, known)
    return ConfigError(f"unknown {what} '{word}'{nearest}{'' if nearest else ';'} {_HINT}")


def _nearest(word: str, known: Sequence[str]) -> str:
    tail = word.rpartition(".")[2]
    found = [entry for entry in known if entry.rpartition(".")[2] == tail] or difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{found[0]}'?" if found else ""
