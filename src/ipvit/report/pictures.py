"""Pictures of the conditions for the page: small files, each embedded once."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image

LARGEST = 336
"""Pixels of the longer side on the page; the files in the run folder are as large as they were made."""
SMALL = 128
"""Pictures up to this side stay exact, pixel by pixel."""
MOST_CAPTIONS = 6
"""Lines under a picture that several models share."""


@dataclasses.dataclass(frozen=True)
class Example:
    """A picture of a condition: what it shows, and the bytes of a PNG or WebP file."""

    caption: str
    data: bytes

    @property
    def url(self) -> str:
        """The picture as a ``data:`` URL."""
        kind = "webp" if self.data[8:12] == b"WEBP" else "png"
        return f"data:image/{kind};base64," + base64.b64encode(self.data).decode()


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Pictures that show the same conditions for one or several models.

    Attributes:
        models: whose pictures these are.
        examples: the pictures, or none where the page has no room for them.
    """

    models: tuple[str, ...]
    examples: tuple[Example, ...]


class _Picture(Protocol):
    @property
    def caption(self) -> str: ...
    @property
    def path(self) -> Path: ...


class Album:
    """Turns picture files into pictures of the page, as long as there is room.

    Args:
        room: bytes that all pictures of a page may take.
        per_section: bytes after which a section shows no further models.
    """

    def __init__(self, room: int = 3_500_000, per_section: int = 700_000) -> None:
        self.room = room
        self.per_section = per_section
        self._made: dict[Path, bytes] = {}

    def galleries(self, pictures: Mapping[str, Sequence[_Picture]]) -> list[Gallery]:
        """Return the pictures by model, those of models with equal pictures together.

        Where there is no more room, the last gallery names the models that are left.

        Args:
            pictures: of each model, in the models' order.
        """
        groups: dict[tuple[Path, ...], list[str]] = {}
        for model, shown in pictures.items():
            groups.setdefault(tuple(picture.path for picture in shown), []).append(model)
        found, before = [], self.room
        without: list[str] = []
        for paths, models in groups.items():
            if self.room <= 0 or before - self.room >= self.per_section:
                without += models
                continue
            captions = [_joined([pictures[model][i].caption for model in models]) for i in range(len(paths))]
            if len(models) == 1:  # the gallery names it
                captions = [caption.removeprefix(f"{models[0]}, ") for caption in captions]
            data = [self._small(path) for path in paths]
            self.room -= sum(map(len, data))
            found.append(Gallery(tuple(models), tuple(map(Example, captions, data))))
        return [*found, Gallery(tuple(without), ())] if without else found

    def _small(self, path: Path) -> bytes:
        if path not in self._made:
            data = path.read_bytes()
            with Image.open(io.BytesIO(data)) as picture:
                if max(picture.size) > SMALL:
                    picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
                    buffer = io.BytesIO()
                    picture.convert("RGB").save(buffer, "WEBP", quality=82)
                    data = buffer.getvalue()
            self._made[path] = data
        return self._made[path]


def _joined(captions: Sequence[str]) -> str:
    """Join what several models' captions say of one picture; what they all begin with, up to a colon, is said once."""
    lines = list(dict.fromkeys(captions))
    what = {line.partition(": ")[0] for line in lines}
    if len(lines) > 1 and len(what) == 1 and all(": " in line for line in lines):
        lines = [f"{what.pop()}:", *(line.partition(": ")[2] for line in lines)]
    more = len(lines) - MOST_CAPTIONS
    return "\n".join(lines if more <= 0 else [*lines[:MOST_CAPTIONS], f"and {more} more"])
