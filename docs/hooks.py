"""What mkdocs is told on the way: which pages there are, and where files outside of docs/ went."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./([^)#\s]+)\)")  # links such as [conf/default.yaml](../conf/default.yaml)
_CODE = re.compile(r"`[^`]*`")
_FOLDER = "files"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave pages out of the navigation that are not there, and append those that it does not name."""
    there = sorted(path.name for path in Path(config.docs_dir).glob("*.md"))
    named: set[str] = set()
    config.nav = _existing(config.nav or [], set(there), named)
    rest = [name for name in there if name not in named]
    config.nav += [{"More": rest}] if rest else []
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what pages link to outside of docs/, configurations and notebooks, so that links lead there without a repository."""
    root = Path(config.docs_dir).parent
    for page in Path(config.docs_dir).glob("*.md"):
        for _, target in _OUTSIDE.findall(page.read_text(encoding="utf-8")):
            uri = f"{_FOLDER}/{target}"
            if _is_copied(root / target) and files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, abs_src_path=str(root / target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to files outside of docs/ lead to their copies; what has none, a folder, becomes plain text.

    In code within a table a bar is escaped, as GitHub asks; mkdocs would show the backslash.
    """
    root = Path(config.docs_dir).parent

    def moved(found: re.Match[str]) -> str:
        text, target = found.groups()
        return f"[{text}]({_FOLDER}/{target})" if _is_copied(root / target) else text

    rows = (_CODE.sub(_unescaped, line) if line.startswith("|") else line for line in _OUTSIDE.sub(moved, markdown).split("\n"))
    return "\n".join(rows)


def _unescaped(code: re.Match[str]) -> str:
    return code[0].replace("\\|", "|")


def _is_copied(path: Path) -> bool:
    return path.is_file() and path.suffix != ".md"


def _existing(nav: list[Any], there: set[str], named: set[str]) -> list[Any]:
    """The entries of a navigation whose pages are there; adds these to `named`."""
    found: list[Any] = []
    for entry in nav:
        title, target = next(iter(entry.items())) if isinstance(entry, dict) else ("", entry)
        if isinstance(target, list):
            inner = _existing(target, there, named)
            found += [{title: inner}] if inner else []
        elif target in there:
            named.add(target)
            found.append(entry)
    return found
