"""Pictures by matplotlib, which commands write beside their tables."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from dedup.errors import MissingExtra

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def load_pyplot() -> Any:
    """`matplotlib.pyplot`, drawing into memory.

    Raises MissingExtra if matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtra("matplotlib", "report") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def png_of(figure: Figure) -> bytes:
    """The PNG file of a figure, which is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    load_pyplot().close(figure)
    return buffer.getvalue()
