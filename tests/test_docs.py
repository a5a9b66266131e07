"""The generated documentation is what its sources say."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer
import yaml
from commands import leaves

import dedup
from dedup import schemas
from dedup.cli.main import app
from dedup.config import Config
from dedup.config.keys import KEYS
from dedup.config.load import load_config, to_dict
from dedup.config.rules import validate
from dedup.runs.directory import Run

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
    assert all(f"| `{name}` |" in configuration and key.meaning for name, key in KEYS.items())
    assert all(f"| `{reason}` |" in tables for reason in schemas.REJECT_REASONS)


def test_files_lie_where_the_layout_says() -> None:
    for name, (files, _) in GENERATE.TABLES.items():
        assert Run("").table(name).path == files.rpartition("/")[0]


# ---- commands and Python names


def sections(text: str) -> dict[str, str]:
    """Second-level sections of a page by their heading."""
    return {part.split("\n", 1)[0]: part for part in text.split("\n## ")[1:]}


def test_every_command_and_option_is_documented() -> None:
    pages = sections((ROOT / "docs" / "commands.md").read_text(encoding="utf-8"))
    commands = dict(leaves(typer.main.get_command(app), ("dedup",)))
    assert len(commands) > 15
    assert set(pages) == {" ".join(name) for name in commands}
    for name, command in commands.items():
        page = pages[" ".join(name)]
        cells = " ".join(line.split(" | ")[0] for line in page.splitlines() if line.startswith("| ")).replace("\\|", "|")
        for parameter in command.params:
            is_argument = parameter.param_type_name == "argument"
            for word in [parameter.metavar or parameter.name.upper()] if is_argument else [*parameter.opts, *parameter.secondary_opts]:
                assert word == "--help" or f"`{word}`" in cells, (name, word)
            assert parameter.name == "help" or parameter.help.replace("|", "\\|") in page
            if isinstance(parameter.default, (int, float, str)) and parameter.default not in ("", False):
                assert f"| `{parameter.default}` |" in page


def test_every_public_name_is_documented() -> None:
    pages = sections((ROOT / "docs" / "python.md").read_text(encoding="utf-8"))
    assert list(pages) == sorted(dedup.__all__, key=str.lower)
    for name, page in pages.items():
        assert f"dedup.{name}(" in page
        first = " ".join((getattr(dedup, name).__doc__ or "").strip().split("\n\n")[0].split())
        assert first.replace("``", "`") in page


# ---- links and the site

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def slugs(page: Path) -> set[str]:
    """Anchors of a page's headings."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name} links to {target}, which is not there"
        assert not anchor or found.suffix != ".md" or anchor in slugs(found), f"{page.name}: no heading for {target}"


NAMED = re.compile(
    r"`((?:dedup|docs|tests|benchmarks|conf|jobs)/[\w./*-]*|(?:config|encoders|engines|judge|numerics|pipeline|schemas|stages|storage)/[\w./*-]*)`"
)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "tables.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_are_there(page: Path) -> None:
    for path in NAMED.findall(page.read_text(encoding="utf-8")):
        assert [*ROOT.glob(path.rstrip("/")), *(ROOT / "dedup").glob(path.rstrip("/"))], f"{page.name} names {path}, which is not there"


@pytest.fixture(scope="module")
def site(tmp_path_factory, require_extra) -> Path:
    """The site, built without a warning, in a copy that has a page more and one less than the navigation names."""
    require_extra("mkdocs")
    require_extra("material")
    folder = tmp_path_factory.mktemp("site")
    for name in ("docs", "conf", "notebooks"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "mkdocs.yml", folder)
    (folder / "docs" / "unnamed.md").write_text("# A page that came later\n\n[the notebooks](../notebooks/)\n")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder / "built")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder / "built"


def test_the_site_has_every_page_and_what_they_link_to(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} | {"unnamed", "404"}
    assert {path.stem for path in site.glob("*.html")} == pages
    navigation = (site / "index.html").read_text(encoding="utf-8")
    assert all(f'href="{name}.html"' in navigation for name in pages - {"404"})
    assert (site / "files" / "conf" / "default.yaml").read_bytes() == (ROOT / "conf" / "default.yaml").read_bytes()
    assert 'href="files/conf/default.yaml"' in (site / "configuration.html").read_text(encoding="utf-8")
    assert not list(site.rglob("*.py"))
    assert "<code>IMAGE|FOLDER|TAR...</code>" in (site / "commands.html").read_text(encoding="utf-8")
    assert "the notebooks" in (site / "unnamed.html").read_text(encoding="utf-8")


def test_the_site_opens_from_the_disk_and_asks_for_nothing_else(site: Path, require_extra, require_browser) -> None:
    playwright = require_extra("playwright.sync_api")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=require_browser, args=["--no-sandbox"])
        page = browser.new_page()
        requested, troubles = [], []
        page.on("request", lambda request: requested.append(request.url))
        page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        for path in sorted(site.glob("*.html")):
            if path.stem != "404":  # which a server shows at any depth
                page.goto(path.as_uri())
                assert page.locator("h1").count() == 1
        page.goto((site / "index.html").as_uri())
        assert page.evaluate("document.querySelector('article img').naturalWidth") > 100
        page.wait_for_selector(".md-search__form", state="visible")
        page.keyboard.press("/")
        page.keyboard.type("breadth-first montage")
        page.wait_for_selector(".md-search-result__item")
        assert page.locator(".md-search-result__item a").first.get_attribute("href")
        assert not [url for url in requested if not url.startswith(("file://", "data:", "blob:"))]
        assert not troubles
        browser.close()
