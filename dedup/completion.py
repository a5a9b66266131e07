"""What the shell is told when the tab key is pressed inside KEY=VALUE."""

from __future__ import annotations


def complete_setting(incomplete: str) -> list[tuple[str, str]]:
    """Configuration keys that begin like that, with their meanings; behind the equals sign the shell offers files.

    Examples
    --------
    >>> [key for key, _ in complete_setting("search.min")]
    ['search.min_similarity=']
    """
    from dedup.config_io import describe

    if "=" in incomplete:
        return []
    return [(f"{entry.key}=", entry.meaning) for entry in describe() if entry.key.startswith(incomplete)]


def complete_lookup_setting(incomplete: str) -> list[tuple[str, str]]:
    """The same, of the sections that a finished run leaves open."""
    return [found for found in complete_setting(incomplete) if found[0].startswith(("encoder.", "input.", "engine."))]
