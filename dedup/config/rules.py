"""Validation: each key by itself, then combinations of keys."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from dedup import schemas
from dedup.config.encoders import AUTO, KINDS, encoder_kind
from dedup.config.key import HINT, Key, did_you_mean
from dedup.config.keys import KEYS, Config, values_of
from dedup.config.order import parse_order
from dedup.errors import ConfigError

_PASSWORD: Final = re.compile(r"://[^\s/@:]*:[^\s/@]+@")
_SIZE: Final = re.compile(r"(?=.*[1-9])[0-9]+(\.[0-9]+)?\s*[kmgt]i?b", re.IGNORECASE)
_HAS_LISTS: Final = re.compile(r"(^|,)IVF(\d+|\{nlist\})")


def validate(config: Config, *, require_input: bool = False) -> None:
    """Refuse values that can't work, before any work is done.

    `require_input`: whether the input will be embedded, so that it and the encoder's weights must be set.
    Raises ConfigError naming the key, what was expected, what was found and what to do.
    """
    for name, value in values_of(config).items():
        _check_value(KEYS[name], value)
    for rule in (*RULES, *EMBEDDING_RULES) if require_input else RULES:
        rule(config)


def _check_value(key: Key, value: Any) -> None:
    if key.form == "address":
        refuse_password(key.name, [value] if isinstance(value, str) else value)
    if key.form in ("similarity", "similarity or 0") and not 0 < value <= 1 and not (key.form == "similarity or 0" and value == 0):
        or_default = "; or 0 for the encoder's own" if key.form == "similarity or 0" else ""
        raise ConfigError(f"{key.name}={value} is not a similarity; expected more than 0 and at most 1, such as 0.9{or_default}")
    is_bounded = key.low > -math.inf or key.high < math.inf
    if is_bounded and not key.low <= value <= key.high:  # negated, so that NaN is refused
        limits = f"{key.low} or more" if key.high == math.inf else f"{key.low} to {key.high}"
        raise ConfigError(f"{key.name}={value} is out of range; expected {limits}; {HINT}")
    unknown = [str(entry) for entry in (value if isinstance(value, list) else [value]) if key.choices and entry not in key.choices]
    if unknown:
        choices, some = ", ".join(key.choices), "some" if isinstance(value, list) else "one"
        raise ConfigError(f"{key.name}={','.join(unknown)} is unknown; expected {some} of {choices}{did_you_mean(unknown[0], key.choices)}")


def refuse_password(name: str, addresses: Sequence[str]) -> None:
    """Stop before an address with a password gets into a table.

    Raises ConfigError.
    """
    if any(_PASSWORD.search(address) for address in addresses):
        raise ConfigError(
            f"{name} holds a password, which would appear in every table; expected an address without one: give credentials through the "
            "environment, or in fsspec's own configuration (~/.config/fsspec)"
        )


def _gpus_are_whole(config: Config) -> None:
    n_gpus = config.engine.gpus_per_task
    if n_gpus > 1 and n_gpus % 1:
        raise ConfigError(f"engine.gpus_per_task={n_gpus} is not a number of GPUs; expected at most 1, or a whole number")


def _probes_fit_lists(config: Config) -> None:
    nlist, nprobe = config.search.nlist, config.search.nprobe
    if 0 < nlist < nprobe:
        raise ConfigError(f"search.nprobe={nprobe} exceeds search.nlist={nlist}; lower nprobe or train more lists")


def _templates_are_found(config: Config) -> None:
    if config.targets.rank_by == "templates" and not config.confirm.enabled:
        raise ConfigError(
            "targets.rank_by=templates needs the templates that the judge finds, but confirm.enabled=false; set confirm.enabled=true, or "
            "rank by duplicates, neighbors or caption"
        )


def _memory_is_a_size(config: Config) -> None:
    limit = config.engine.memory_limit
    if not _SIZE.fullmatch(limit):
        raise ConfigError(f"engine.memory_limit={limit} is not a size; expected a number and a unit, such as 4GB")


def _index_is_searchable(config: Config) -> None:
    if config.search.method != "ivfpq":
        return
    if config.base.run_dir:
        raise ConfigError("search.method=ivfpq looks up all images, those of base.run_dir too; expected search.method=lists with a base")
    if config.index.codes == "none" and not config.index.factory:
        raise ConfigError("search.method=ivfpq searches the index, which index.codes=none leaves out; expected pq, fp16 or auto")


def _factory_has_lists(config: Config) -> None:
    factory = config.index.factory
    if factory and not _HAS_LISTS.search(factory):
        raise ConfigError(f"index.factory={factory} has no inverted lists; expected such as IVF{{nlist}},Flat or OPQ64,IVF{{nlist}},PQ64")


def _run_dir_is_no_pattern(config: Config) -> None:
    run_dir = config.output.run_dir
    if set(run_dir) & set("*?["):
        raise ConfigError(f"output.run_dir={run_dir} looks like a pattern; choose a name without *, ? and [")


def _preferred_base_is_set(config: Config) -> None:
    if config.keep.prefer_base and not config.base.run_dir:
        raise ConfigError("keep.prefer_base=true without base.run_dir, whose keepers it would keep; set that, or leave it out")


def _weights_are_named(config: Config) -> None:
    weights = encoder_kind(config.encoder.name).weights
    if weights and not config.encoder.pretrained:
        raise ConfigError(f"encoder.pretrained is not set; expected {weights}; vectors of random weights find nothing")


def _encoder_can_compile(config: Config) -> None:
    name = config.encoder.name
    if config.encoder.compile and encoder_kind(name).is_scripted:
        raise ConfigError(f"encoder.compile=true with encoder.name={name}, which torch can't compile; leave it out")


def _second_encoder_fits(config: Config) -> None:
    also = config.embed.also
    if not also or also == AUTO:
        return
    if also not in [[kind.name] for kind in KINDS if kind.is_descriptor]:
        raise ConfigError(f"embed.also={','.join(also)} is not a second source of candidates; expected dct, auto or []")
    if not encoder_kind(config.encoder.name).needs_weights:
        raise ConfigError(f"embed.also=dct with encoder.name={config.encoder.name}; expected encoder.name=clip or torchscript beside it")
    if not config.confirm.enabled:
        raise ConfigError("embed.also=dct with confirm.enabled=false; its candidates must be judged by their pixels: leave one of them out")


def _captions_can_be_embedded(config: Config) -> None:
    name = config.encoder.name
    if config.embed.text and not encoder_kind(name).embeds_captions:
        raise ConfigError(f"embed.text=true with encoder.name={name}, which does not embed text; expected encoder.name=clip")


def _given_inputs(config: Config) -> list[str]:
    inputs = (
        ("shards", ", ".join(config.input.shards[:1])),
        ("images", ", ".join(config.input.images[:1])),
        ("embeddings", config.input.embeddings),
    )
    return [f"input.{name}={value}" for name, value in inputs if value]


def _input_is_one(config: Config) -> None:
    given = _given_inputs(config)
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} are set; expected one of them; leave the others out")


def _input_is_set(config: Config) -> None:
    if not _given_inputs(config):
        raise ConfigError("no input is set; expected input.shards='DIR/*.tar', input.images=DIR or input.embeddings=DIR; add one of them")


def _input_fits_encoder(config: Config) -> None:
    given, name = _given_inputs(config), config.encoder.name
    if given and encoder_kind(name).has_images == bool(config.input.embeddings):
        raise ConfigError(f"encoder.name={name} with {given[0]}; expected encoder.name=precomputed with input.embeddings=DIR")


def _settings_belong_together(config: Config) -> None:
    if config.input.captions and not config.input.images:
        raise ConfigError("input.captions is set without input.images, which it belongs to; for shards use input.sidecar=true")
    if config.input.captions and len(config.input.images) > 1:
        raise ConfigError(
            "input.captions is the table of one folder, found several input.images; give one, or put captions beside the images"
        )
    if config.base.moved and not config.base.run_dir:
        raise ConfigError("base.moved is set without base.run_dir, whose data it looks for elsewhere")
    if config.input.columns and not config.input.embeddings:
        raise ConfigError("input.columns is set without input.embeddings, whose columns it names")
    if config.input.raw and not config.input.embeddings:
        raise ConfigError("input.raw is set without input.embeddings, whose vectors it describes")


def _carried_names_are_new(config: Config) -> None:
    taken = {name.lower() for table in ("manifest", "duplicates", "excluded") for name in schemas.TABLES[table].names}
    for name in config.input.carry:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ConfigError(f"input.carry: '{name}' is not a column name; expected letters, digits and '_', such as punsafe")
        if name.lower() in taken:
            raise ConfigError(f"input.carry names '{name}', which the tables have already, or twice; leave it out")
        taken.add(name.lower())


def _order_is_known(config: Config) -> None:
    terms = parse_order(config.keep.order_by, config.input.carry)
    if any(term.name == "caption_similarity" for term in terms) and not config.embed.text:
        raise ConfigError("keep.order_by names caption_similarity, which is measured with embed.text=true; set that, or leave it out")
    if config.keep.caption == "best" and not config.embed.text and "similarity" not in config.input.carry:
        raise ConfigError(
            "keep.caption=best compares captions by their similarity to the image, which is not known; set embed.text=true, carry a column "
            "similarity (input.carry=similarity), or use most_frequent"
        )


def _captions_can_pass(config: Config) -> None:
    shortest, longest = config.targets.min_caption_length, config.targets.max_caption_length
    if 0 < longest < shortest:
        raise ConfigError(
            f"targets.max_caption_length={longest} is below targets.min_caption_length={shortest}; "
            "no caption passes: raise the one or lower the other"
        )


def _target_columns_are_carried(config: Config) -> None:
    targets = config.targets
    needed = [("targets.language", targets.language_column)] if targets.language else []
    needed += [("targets.max_punsafe", "punsafe")] if targets.max_punsafe < 1 else []
    for key, column in needed:
        if column not in config.input.carry:
            raise ConfigError(f"{key} needs the column {column}, which is not carried; add it to input.carry, where the shards have it")


def _languages_are_words(config: Config) -> None:
    for language in config.targets.language:
        if not re.fullmatch(r"[A-Za-z][A-Za-z_-]*", language):
            raise ConfigError(f"targets.language: '{language}' is not a language; expected letters, such as en")


Rule = Callable[[Config], None]
RULES: Final[tuple[Rule, ...]] = (
    _gpus_are_whole,
    _probes_fit_lists,
    _memory_is_a_size,
    _templates_are_found,
    _index_is_searchable,
    _factory_has_lists,
    _run_dir_is_no_pattern,
    _preferred_base_is_set,
    _encoder_can_compile,
    _second_encoder_fits,
    _captions_can_be_embedded,
    _input_is_one,
    _input_fits_encoder,
    _settings_belong_together,
    _carried_names_are_new,
    _order_is_known,
    _captions_can_pass,
    _target_columns_are_carried,
    _languages_are_words,
)
EMBEDDING_RULES: Final[tuple[Rule, ...]] = (_input_is_set, _weights_are_named)
