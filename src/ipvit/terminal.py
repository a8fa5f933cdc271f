"""Writing to the terminal: names of files, classes and networks are shown and never obeyed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from ipvit.errors import harmless


class Terminal(Console):
    """A rich console without markup, in whose texts every control character is a replacement character.

    Square brackets in a name are no styles, and an escape sequence in one reaches no terminal: what is bold or red is
    said with ``style=``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of something to show, their text made harmless."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(harmless(segment.text), segment.style)
