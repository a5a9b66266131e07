"""The generated documentation is what its sources say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from dedup import schemas
from dedup.config import Config
from dedup.config_io import describe, load_config, to_dict, validate
from dedup.storage.layout import RunLayout

ROOT = Path(__file__).resolve().parent.parent


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = _generator()


@pytest.mark.parametrize("name", GENERATE.FILES)
def test_files_are_as_generated(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == GENERATE.FILES[name](), f"{name} is out of date; run `make docs`"


def test_default_yaml_holds_the_defaults() -> None:
    text = (ROOT / "conf" / "default.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == to_dict(Config())
    assert load_config(str(ROOT / "conf" / "default.yaml"), []) == Config()


@pytest.mark.parametrize("path", sorted((ROOT / "conf").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_configuration_is_valid(path: Path) -> None:
    validate(load_config(str(path), []))


def test_every_key_and_column_is_documented() -> None:
    tables, configuration = GENERATE.tables_md(), GENERATE.configuration_md()
    for name, schema in schemas.TABLES.items():
        section = tables.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert all(f"| `{column}` |" in section for column in schema.names)
    assert all(f"| `{entry.key}` |" in configuration and entry.meaning for entry in describe())
    assert all(f"| `{reason}` |" in tables for reason in schemas.REJECT_REASONS)


def test_files_lie_where_the_layout_says() -> None:
    for name, (files, _) in GENERATE.TABLES.items():
        assert RunLayout("").table(name).path == files.rpartition("/")[0]
