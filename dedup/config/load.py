"""Loading a configuration: defaults, then a YAML file, then ``key=value`` overrides, each replacing the one before.

Overrides of text keys are taken literally, never parsed as YAML, so that ``input.shards=/data/{00000..00999}.tar`` needs no quoting.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml
from omegaconf import Container, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dedup.config.encoders import AUTO, DESCRIPTOR, encoder_kind
from dedup.config.key import HINT, Texts, did_you_mean
from dedup.config.keys import KEYS, SECTIONS, Config
from dedup.errors import ConfigError

_TYPE_NAMES: Final = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Texts: "a list of texts"}
_BOOLS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def to_dict(config: Config) -> dict[str, dict[str, Any]]:
    """Every value as plain data: section to key to value."""
    return dataclasses.asdict(config)


def from_dict(values: Mapping[str, Mapping[str, Any]]) -> Config:
    """A configuration from the data of `to_dict`; unknown keys, of other versions, are ignored, and missing ones get their defaults."""
    merged = to_dict(Config())
    for section, keys in merged.items():
        keys |= {name: value for name, value in values.get(section, {}).items() if name in keys}
    return Config(**{section: cls(**merged[section]) for section, cls in SECTIONS.items()})


def load_config(path: str | Mapping[str, Any] | None = None, overrides: Sequence[str] = ()) -> Config:
    """Build a configuration from the defaults, a YAML file and overrides, each over the one before.

    Parameters
    ----------
    path : str, mapping or None
        YAML file of sections and keys; values may use OmegaConf's ``${…}``. Or the same as a mapping: sections of keys, or
        ``{"search.nprobe": 8}``.
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
    values = to_dict(Config()) if path is None else _read(path, Config)
    given: set[str] = set()
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"'{override}' is not a setting; expected section.key=value, such as search.nprobe=8; {HINT}")
        _require_known(key)
        section, _, name = key.partition(".")
        value = _parse(key, text)
        if isinstance(value, list) and key in given:
            value = [*values[section][name], *value]
        given.add(key)
        values[section][name] = value
    return _built(values)


def updated(config: Config, settings: Mapping[str, Any]) -> Config:
    """A configuration with other values for some keys; `settings` and errors as in `load_config`.

    >>> updated(Config(), {"search.nprobe": 8}).search.nprobe
    8
    """
    return _built(_read(settings, config))


def _built(values: dict[str, dict[str, Any]]) -> Config:
    for key in (key for key, entry in KEYS.items() if entry.form == "switch"):  # YAML's yes and True mean true
        section, _, name = key.partition(".")
        text = str(values[section][name]).lower()
        values[section][name] = str(_BOOLS.get(text, text)).lower()
    return Config(**{section: cls(**values[section]) for section, cls in SECTIONS.items()})


def resolved(config: Config) -> Config:
    """The configuration with thresholds of 0 and a second source of `auto` replaced by what they mean for its encoder."""
    search, kind, also = config.search, encoder_kind(config.encoder.name), config.embed.also
    if also == AUTO:
        # candidates of a second source must be judged
        also = [DESCRIPTOR] if kind.needs_weights and config.confirm.enabled else []
    threshold = search.min_similarity or kind.default_min_similarity
    also_threshold = search.also_min_similarity or (encoder_kind(also[0]).default_min_similarity if also else 0.0)
    return dataclasses.replace(
        config,
        embed=dataclasses.replace(config.embed, also=also),
        search=dataclasses.replace(search, min_similarity=threshold, also_min_similarity=also_threshold),
    )


def _read(path: str | Mapping[str, Any], base: Config | type[Config]) -> dict[str, dict[str, Any]]:
    """The values of a configuration, updated with those of a YAML file or a mapping; OmegaConf resolves ``${…}`` and converts types."""
    where = "settings" if isinstance(path, Mapping) else path
    try:
        loaded = OmegaConf.create(_nested(path)) if isinstance(path, Mapping) else OmegaConf.load(path)
        if not isinstance(loaded, DictConfig):
            raise ConfigError(f"expected sections such as 'search:', found a {type(OmegaConf.to_container(loaded)).__name__}; {HINT}")
        _check_keys(loaded)
        plain = OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(base), loaded), resolve=True)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}, line {line}: broken YAML: {error.problem or error.context}; fix that line") from error
    except OmegaConfBaseException as error:
        key = str(error.full_key or "")
        entry = KEYS.get(key.partition("[")[0])
        expected = f": expected {_TYPE_NAMES[str if '[' in key else entry.type]}" if entry else ""
        raise ConfigError(f"{where}: {key}{expected}: {str(error).splitlines()[0]}; {HINT}") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error).replace("\n", " ")
        raise ConfigError(f"the configuration file {path} can't be read: {reason}; give -c the path of a YAML file") from error
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return typing.cast("dict[str, dict[str, Any]]", plain)


def _nested(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings as sections of keys, also where they are given as ``section.key``."""
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        section, dot, name = str(key).partition(".")
        if dot:
            nested.setdefault(section, {})[name] = value
        elif isinstance(value, Mapping):
            nested.setdefault(section, {}).update(value)
        else:
            nested[section] = value
    return nested


def _check_keys(loaded: DictConfig) -> None:
    """Refuse unknown keys; turn a single text into a list where a list is expected."""
    for section, entries in ((str(key), node) for key, node in loaded.items_ex(resolve=False)):
        if section not in SECTIONS:
            outer, dot, inner = section.partition(".")
            if dot:
                raise ConfigError(f"unknown section '{section}'; write '{inner}:' under '{outer}:'; {HINT}")
            raise _unknown("section", section, list(SECTIONS))
        if not isinstance(entries, DictConfig):
            raise ConfigError(f"section '{section}': expected keys and values, found {entries!r}; {HINT}")
        for name, value in entries.items_ex(resolve=False):
            key = f"{section}.{name!s}"
            _require_known(key)
            if KEYS[key].type == Texts:
                nodes = value._iter_ex(resolve=False) if isinstance(value, ListConfig) else [value]
                if any(isinstance(node, Container) for node in nodes):
                    raise _type_error(key, OmegaConf.to_container(value))
                if not isinstance(value, ListConfig):
                    entries[name] = [value]


def _parse(key: str, text: str) -> Any:
    """The text of an override as a value of the key's type."""
    kind = KEYS[key].type
    if kind is str:
        return text
    if kind == Texts:
        if KEYS[key].form != "commas":
            return [text] if text else []
        inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        return [" ".join(entry.split()) for entry in inner.split(",") if entry.strip()]
    with contextlib.suppress(KeyError, ValueError, OverflowError):
        value = _BOOLS[text.lower()] if kind is bool else kind(text)
        if math.isfinite(value):
            return value
    raise _type_error(key, text)


def _type_error(key: str, found: Any) -> ConfigError:
    return ConfigError(f"{key}: expected {_TYPE_NAMES[KEYS[key].type]}, found {found!r}; {HINT}")


def _require_known(key: str) -> None:
    if key not in KEYS:
        raise _unknown("key", key, list(KEYS))


def _unknown(what: str, word: str, known: Sequence[str]) -> ConfigError:
    nearest = did_you_mean(word, known)
    return ConfigError(f"unknown {what} '{word}'{nearest}{'' if nearest else ';'} {HINT}")
