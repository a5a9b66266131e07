"""Loading and checking a configuration."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup.config import Config
from dedup.config.encoders import KINDS, encoder_kind
from dedup.config.key import FREE, STAGE_NAMES, all_keys, key
from dedup.config.keys import KEYS, keys_of, values_of
from dedup.config.load import load_config, resolved, to_dict, updated
from dedup.config.order import parse_order
from dedup.config.rules import validate
from dedup.errors import ConfigError
from dedup.pipeline.plan import STAGES


def value(override: str, *more: str) -> Any:
    section, _, name = override.partition("=")[0].partition(".")
    return to_dict(load_config(None, [override, *more]))[section][name]


def write(tmp_path: Path, text: str | bytes) -> str:
    path = tmp_path / "c.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_no_file_and_no_overrides_are_the_defaults() -> None:
    assert load_config(None, []) == Config()


def test_a_mapping_instead_of_a_file():
    nested = load_config({"search": {"nprobe": 8, "min_similarity": 1}, "keep": {"order_by": "width desc"}})
    assert nested == load_config({"search.nprobe": 8, "search.min_similarity": 1.0, "keep.order_by": ["width desc"]})
    assert nested.search.min_similarity == 1.0 and nested.keep.order_by == ["width desc"]
    assert load_config({"search.nprobe": 8}, ["search.nprobe=4"]).search.nprobe == 4
    assert updated(nested, {"search.nlist": 16}).search == dataclasses.replace(nested.search, nlist=16)
    for wrong, message in (
        ({"search.nprob": 1}, "settings: unknown key 'search.nprob'; did you mean 'search.nprobe'"),
        ({"search.nprobe": "many"}, "settings: search.nprobe: expected a whole number"),
        ({"search": 5}, "settings: section 'search': expected keys and values, found 5"),
        ({"serch": {}}, "settings: unknown section 'serch'"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(wrong)


def test_every_key_knows_its_default_type_and_meaning() -> None:
    values = {f"{section}.{name}": value for section, keys in to_dict(Config()).items() for name, value in keys.items()}
    assert {name: entry.default for name, entry in KEYS.items()} == values == values_of(Config())
    for name, entry in KEYS.items():
        assert entry.name == name
        assert entry.type_name in {"str", "int", "float", "bool", "list[str]"}
        assert entry.meaning


# what a stage's record holds: another key here, and a changed setting would redo it; one less, and it would be passed over silently
KEYS_OF = {
    "embed": "input.images input.embeddings input.captions input.sidecar input.carry input.columns input.raw input.images_per_sample input.max_pixels input.max_image_bytes encoder.name "
    "embed.shards_per_partition embed.images_per_partition embed.also embed.text embed.thumbnails embed.copy_vectors",
    "index": "search.min_similarity search.also_min_similarity search.views search.view_min_similarity search.nlist search.nprobe "
    "search.exhaustive_below search.low_detail_quality search.low_detail_min_similarity search.flat_quality "
    "index.codes index.factory index.train_vectors_per_list index.train_iterations index.seed",
    "pairs": "search.method search.best_edges search.recall_queries",
    "confirm": "confirm.enabled confirm.max_distance confirm.unreadable confirm.drop confirm.reconnect",
    "groups": "",
    "exclude": "exclude.reference_shards exclude.reference_images exclude.list",
    "manifest": "keep.order_by keep.per_component keep.templates keep.scenes keep.prefer keep.caption keep.prefer_base",
    "statistics": "",
    "targets": "targets.top targets.rank_by targets.min_caption_length targets.max_caption_length targets.language targets.language_column "
    "targets.max_punsafe targets.n_generations",
}


def test_each_stage_depends_on_these_keys() -> None:
    assert {stage: list(keys_of(stage)) for stage in STAGE_NAMES} == {stage: names.split() for stage, names in KEYS_OF.items()}
    assert {*keys_of(FREE), *" ".join(KEYS_OF.values()).split()} == set(KEYS)


def test_the_stages_are_those_of_the_pipeline() -> None:
    assert tuple(stage.name for stage in STAGES) == STAGE_NAMES


def test_a_key_without_a_stage_is_refused() -> None:
    with pytest.raises(TypeError, match="stage"):
        key(1, "a key that forgot its stage")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="a key of stage 'indx' .* expected one of embed, index, .*, or free"):
        key(1, "a key with a stage that there is not", stage="indx")
    with pytest.raises(TypeError, match=r"odd\.plain is a field without facts"):
        all_keys({"odd": dataclasses.make_dataclass("Odd", [("plain", int, 1)])})


def test_what_a_key_takes_is_checked_by_what_it_says() -> None:
    for name, entry in KEYS.items():
        low, high, choices = entry.low, entry.high, entry.choices
        section, _, field = name.partition(".")
        wrong = [low - 1] * (low > -math.inf) + [high + 1] * (high < math.inf) + ["nonsense"] * bool(choices)
        for value in wrong:
            part = dataclasses.replace(getattr(Config(), section), **{field: value})
            with pytest.raises(ConfigError, match=re.escape(f"{name}={value}")):
                validate(dataclasses.replace(Config(), **{section: part}))


def test_an_address_holds_no_password() -> None:
    for name in (name for name, entry in KEYS.items() if entry.form == "address"):
        with pytest.raises(ConfigError, match=f"{re.escape(name)} holds a password"):
            validate(load_config(None, [f"{name}=https://me:secret@host/x.tar"]))


def test_an_encoder_has_its_own_threshold() -> None:
    for kind in KINDS:
        config = resolved(load_config(None, [f"encoder.name={kind.name}"]))
        assert config.search.min_similarity == kind.default_min_similarity
        assert f"{kind.name} {kind.default_min_similarity}" in KEYS["search.min_similarity"].meaning
    with pytest.raises(ConfigError, match="encoder.name=nothing is unknown; expected one of dct, clip"):
        encoder_kind("nothing")


@pytest.mark.parametrize(
    "old",
    ["search.looks", "search.look_min_similarity", "components.max_local_edges", "reference.shards", "encoder.device", "extraction.device"],
)
def test_an_earlier_name_is_unknown(old: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown key '{old}'"):
        load_config(None, [f"{old}=1"])


def test_the_order_is_parsed_once() -> None:
    terms = parse_order(["width*height  DESC", "punsafe"], ["punsafe"])
    assert [(term.name, term.columns, term.is_descending, term.text) for term in terms] == [
        ("width*height", ("width", "height"), True, "width*height DESC"),
        ("punsafe", ("punsafe",), False, "punsafe"),
    ]


@pytest.mark.parametrize(
    "text",
    ["out", "", "a=b", "{00..09}", "a,b", "${HOME}", "${", "[x]", "null", "true", "1", " spaced ", "s3://b/k?v=1#f", "a: b", "'q'", "ü%20"],
)
def test_text_stands_for_itself(text: str) -> None:
    assert value(f"output.run_dir={text}") == text
    if text:
        assert value(f"input.shards={text}") == [text]


@given(st.text(min_size=1))
def test_any_text_stands_for_itself(text: str) -> None:
    assert value(f"output.run_dir={text}") == text
    assert value(f"input.shards={text}", f"input.shards={text}") == [text, text]


def test_a_later_override_of_a_single_value_wins() -> None:
    assert value("search.nprobe=4", "search.nprobe=8") == 8


def test_shards_collect_and_the_first_replaces_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "input:\n  shards: [old.tar, older.tar]\n")
    assert load_config(path, []).input.shards == ["old.tar", "older.tar"]
    assert load_config(path, ["input.shards=a.tar", "search.nprobe=2", "input.shards=b.tar"]).input.shards == ["a.tar", "b.tar"]
    assert load_config(path, ["input.shards="]).input.shards == []


@pytest.mark.parametrize("text", ["width desc,n_bytes", "[width desc, n_bytes]", "[ width  desc ,n_bytes]", " width desc , n_bytes ,"])
def test_order_by_is_split_at_commas(text: str) -> None:
    assert value(f"keep.order_by={text}") == ["width desc", "n_bytes"]


def test_carry_is_split_at_commas() -> None:
    assert value("input.carry=punsafe,LICENSE") == ["punsafe", "LICENSE"]
    assert value("input.carry=punsafe", "input.carry=LICENSE") == ["punsafe", "LICENSE"]
    assert value("input.carry=[]") == []


@pytest.mark.parametrize(("text", "expected"), [("true", True), ("False", False), ("1", True), ("0", False), ("yes", True), ("NO", False)])
def test_booleans(text: str, expected: bool) -> None:
    assert value(f"search.views={text}") is expected


def test_numbers() -> None:
    assert value("targets.top=1_000") == 1000
    assert value("search.min_similarity=1e-3") == 0.001
    assert value("search.min_similarity=1") == 1.0
    assert isinstance(value("search.min_similarity=1"), float)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("search.nprobe=many", "a whole number"),
        ("search.nprobe=1.5", "a whole number"),
        ("search.nprobe=", "a whole number"),
        (f"search.nprobe={10**400}", "a whole number"),
        ("search.min_similarity=high", "a number"),
        ("search.min_similarity=nan", "a number"),
        ("search.min_similarity=inf", "a number"),
        ("search.views=maybe", "true or false"),
        ("search.views=", "true or false"),
    ],
)
def test_a_wrong_type_names_key_expected_and_found(override: str, expected: str) -> None:
    key, _, found = override.partition("=")
    with pytest.raises(ConfigError) as caught:
        load_config(None, [override])
    assert str(caught.value).startswith(f"{key}: expected {expected}, found {found!r}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.nprob=8", "unknown key 'search.nprob'; did you mean 'search.nprobe'? run `dedup config` for all keys"),
        ("serch.nprobe=8", "did you mean 'search.nprobe'?"),
        ("nprobe=8", "unknown key 'nprobe'; did you mean 'search.nprobe'?"),
        ("min_similarity=0.9", "did you mean 'search.min_similarity'?"),
        ("search=8", "unknown key 'search'"),
        ("search.nprobe.x=8", "unknown key 'search.nprobe.x'"),
        ("zzzzqqqq=8", "unknown key 'zzzzqqqq'; run `dedup config`"),
        ("=8", "unknown key ''"),
        ("input.shards", "'input.shards' is not a setting; expected section.key=value"),
        ("/data/00000.tar", "is not a setting"),
    ],
)
def test_unknown_keys_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [override])
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_file_goes_over_the_defaults_and_overrides_over_it(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "search:\n  min_similarity: 9e-1\n  nprobe: 4\n  views: no\ninput:\n  shards: '{00..09}.tar'\n  carry: [punsafe]\n",
    )
    config = load_config(path, ["search.nprobe=8"])
    assert config.search.min_similarity == 0.9
    assert config.search.nprobe == 8
    assert config.search.nlist == Config().search.nlist
    assert config.search.views is False
    assert config.input.shards == ["{00..09}.tar"]
    assert config.input.carry == ["punsafe"]


def test_a_file_resolves_interpolations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTS", "12")
    path = write(
        tmp_path,
        "search: {nlist: '${oc.env:LISTS}'}\noutput: {run_dir: 'out-${encoder.name}'}\ninput: {shards: ['${output.run_dir}/x.tar']}",
    )
    config = load_config(path, [])
    assert (config.search.nlist, config.output.run_dir, config.input.shards) == (12, "out-dct", ["out-dct/x.tar"])


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "# nothing\n"), []) == Config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("search:\n  nprob: 8\n", "unknown key 'search.nprob'; did you mean 'search.nprobe'?"),
        ("serch:\n  nprobe: 8\n", "unknown section 'serch'; did you mean 'search'?"),
        ("search.nprobe: 8\n", "write 'nprobe:' under 'search:'"),
        ("1: 8\n", "unknown section '1'"),
        ("search: 8\n", "section 'search': expected keys and values, found 8"),
        ("search:\n", "section 'search': expected keys and values, found None"),
        ("search: [nprobe]\n", "section 'search': expected keys and values, found ['nprobe']"),
        ("- search\n", "expected sections such as 'search:', found a list"),
        ("search:\n  nprobe: many\n", "search.nprobe: expected a whole number"),
        ("search:\n  nprobe: 1.5\n", "search.nprobe: expected a whole number"),
        ("search:\n  nprobe: true\n", "search.nprobe: expected a whole number"),
        ("search:\n  nprobe:\n", "search.nprobe: expected a whole number"),
        ("search:\n  nprobe: [8]\n", "search.nprobe: expected a whole number"),
        ("search:\n  min_similarity: high\n", "search.min_similarity: expected a number"),
        ("search:\n  views: maybe\n", "search.views: expected true or false"),
        ("output:\n  run_dir: {a: 1}\n", "output.run_dir: expected text"),
        ("input:\n  shards: {a: 1}\n", "input.shards"),
        ("input:\n  shards: [[a]]\n", "input.shards: expected a list of texts"),
        ("input:\n  shards: [null]\n", "input.shards[0]: expected text"),
        ("input:\n  shards:\n", "input.shards"),
        ("output:\n  run_dir: ${nowhere}\n", "nowhere"),
        ("output:\n  run_dir: ${oc.env:NO_SUCH_VARIABLE_HERE}\n", "NO_SUCH_VARIABLE_HERE"),
        ("search:\n  nprobe: 8\n  nprobe: 9\n", "line 3"),
        ("search:\n  nprobe: [8\noutput: {}\n", "line 3"),
        ("search:\n\tnprobe: 8\n", "line 2"),
        (b"search: \xff\xfe\n", "can't be read"),
        (b"search: \x00\n", "can't be read"),
        ("output:\n  run_dir: ${\n", "run_dir"),
        ("just words\n", "unknown section 'just words'"),
    ],
)
def test_a_bad_file_is_one_readable_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, [])
    assert message in str(caught.value)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml can't be read: No such file"):
        load_config(str(tmp_path / "nowhere.yaml"), [])
    with pytest.raises(ConfigError, match="can't be read"):
        load_config(str(tmp_path), [])


def test_the_defaults_are_valid() -> None:
    validate(Config())


@pytest.mark.parametrize(
    "override",
    [
        "search.min_similarity=1",
        "search.low_detail_min_similarity=1.0",
        "search.exhaustive_below=0",
        "search.best_edges=0",
        "search.recall_queries=0",
        "index.codes=fp16",
        "keep.order_by=quality desc,key ASC,shard",
        "keep.per_component=3",
        "engine.memory_limit=512 MiB",
        "engine.memory_limit=1.5GB",
        "engine.gpus_per_task=0.5",
        "engine.gpus_per_task=2",
        "engine.device=cpu",
        "engine.device=cuda",
        "input.shards=x.tar",
        "input.images=folder",
    ],
)
def test_possible_values(override: str) -> None:
    validate(load_config(None, [override]))


@pytest.mark.parametrize(
    "override",
    [
        "search.min_similarity=1.01",
        "search.min_similarity=-0.5",
        "search.low_detail_min_similarity=0",
        "search.low_detail_min_similarity=2",
        "search.low_detail_quality=-1",
        "search.flat_quality=101",
        "search.nlist=-1",
        "search.nprobe=-1",
        "search.exhaustive_below=-1",
        "search.best_edges=-1",
        "search.recall_queries=-2",
        "engine.device=gpu",
        "index.train_vectors_per_list=0",
        "index.train_iterations=0",
        "index.seed=-1",
        "index.codes=pqq",
        "encoder.name=dctt",
        "engine.name=sparc",
        "engine.sends_rows=maybe",
        "engine.workers=-1",
        "engine.gpus_per_task=1.5",
        "engine.gpus_per_task=-1",
        "engine.memory_limit=lots",
        "engine.memory_limit=4",
        "engine.memory_limit=0GB",
        "embed.batch_size=-1",
        "embed.decode_threads=-1",
        "encoder.precision=fp8",
        "encoder.normalization=none",
        "embed.shards_per_partition=0",
        "embed.images_per_partition=-1",
        "input.max_pixels=0",
        "input.max_image_bytes=0",
        "keep.per_component=0",
        "keep.order_by=[]",
        "keep.order_by=widht desc",
        "keep.order_by=width downwards",
        "keep.order_by=width desc; drop table x",
        "keep.order_by=punsafe",
        "input.carry=sample_id",
        "input.carry=URL",
        "input.carry=a,a",
        "input.carry=a b",
        "input.captions=c.csv",
        "targets.top=0",
        "targets.n_generations=0",
    ],
)
def test_impossible_values_are_refused_by_name(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(load_config(None, [override]))
    assert override.partition("=")[0] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_may_not_hold_nan(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"search\.min_similarity"):
        validate(load_config(write(tmp_path, "search: {min_similarity: .nan}"), []))


def test_nprobe_may_not_exceed_nlist() -> None:
    with pytest.raises(ConfigError, match=r"search\.nprobe=8192 exceeds search\.nlist=4096; lower nprobe or train more lists"):
        validate(load_config(None, ["search.nprobe=8192", "search.nlist=4096"]))
    validate(load_config(None, ["search.nprobe=8192", "search.nlist=0"]))
    validate(load_config(None, ["search.nprobe=64", "search.nlist=64"]))


def test_the_nearest_name_is_offered() -> None:
    with pytest.raises(ConfigError, match="did you mean 'width'"):
        validate(load_config(None, ["keep.order_by=widht desc"]))
    with pytest.raises(ConfigError, match="did you mean 'dct'"):
        validate(load_config(None, ["encoder.name=dctt"]))


def test_carried_columns_may_order() -> None:
    validate(load_config(None, ["input.carry=punsafe", "keep.order_by=punsafe asc,sample_id"]))


def test_input_is_shards_or_images() -> None:
    with pytest.raises(ConfigError, match="are set; expected one of them"):
        validate(load_config(None, ["input.shards=a.tar", "input.images=folder"]))
    with pytest.raises(ConfigError, match="no input is set"):
        validate(Config(), require_input=True)
    validate(load_config(None, ["input.shards=a.tar"]), require_input=True)
    validate(load_config(None, ["input.images=folder", "input.captions=c.csv"]), require_input=True)
