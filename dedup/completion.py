"""What the shell is told when the tab key is pressed inside KEY=VALUE."""

from __future__ import annotations

from collections.abc import Sequence

import typer


def complete_setting(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Configuration keys that begin like that, with their meanings; behind the equals sign the shell offers files."""
    given = ctx.params.get("overrides") or ()
    return [] if _is_value(given, incomplete) else settings(incomplete)


def complete_lookup_setting(incomplete: str) -> list[tuple[str, str]]:
    """The same, of the sections that a finished run leaves open."""
    return [found for found in settings(incomplete) if found[0].startswith(("encoder.", "input.", "engine."))]


def settings(incomplete: str) -> list[tuple[str, str]]:
    """Words to offer for the beginning of a key, with their meanings.

    Of a key that is the only one, two words with a value each: the shell then writes what both begin with, and no space.

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
    found = [entry for name, entry in KEYS.items() if name.startswith(incomplete)]
    if len(found) != 1:
        return [(f"{entry.name}=", entry.meaning) for entry in found]
    key, default, meaning = found[0].name, found[0].default, found[0].meaning
    if isinstance(default, bool):
        return [(f"{key}=true", meaning), (f"{key}=false", meaning)]
    value = "VALUE" if default in ("", []) or isinstance(default, list) else default
    return [(f"{key}=", meaning), (f"{key}={value}", meaning)]


def _is_value(given: Sequence[str], incomplete: str) -> bool:
    """Whether the word stands behind an equals sign: bash hands `key=value` over as three words."""
    return bool(given) and (given[-1] == "=" or (not incomplete and given[-1].count(".") == 1 and "=" not in given[-1]))
