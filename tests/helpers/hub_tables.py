"""Tables as the package datasets gives them, without the package."""

from __future__ import annotations

import io
import sys
import types
from typing import Any

import pytest
from PIL import Image


def encoded(level: int) -> bytes:
    """A grey picture as a PNG file."""
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), (level, level, level)).save(buffer, "PNG")
    return buffer.getvalue()


def rows(*levels: int) -> list[dict]:
    """A column of pictures."""
    return [{"bytes": encoded(level), "path": None} for level in levels]


class Feature(dict):
    """Stands in for ``datasets.Image``."""


Feature.__name__ = "Image"


class ClassLabel:
    def __init__(self, names):
        self.names = names


class Table:
    """As much of ``datasets.Dataset`` as is used."""

    def __init__(self, columns, features):
        self.columns, self.features = columns, features

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key):
        if isinstance(key, str):
            return self.columns[key]
        return {name: values[key] for name, values in self.columns.items()}

    def cast_column(self, name, feature):
        assert feature["decode"] is False
        return self


def provide_table(monkeypatch: pytest.MonkeyPatch, columns: dict[str, list], features: dict[str, Any]) -> None:
    """Let ``datasets.load_dataset`` return a table, whose only split is ``test``."""

    def load_dataset(name, split, cache_dir):
        if split != "test":
            raise Exception(f"Unknown split {split}. Should be one of ['test'].")
        return Table(columns, features)

    module = types.SimpleNamespace(load_dataset=load_dataset, Image=lambda decode: Feature(decode=decode))
    monkeypatch.setitem(sys.modules, "datasets", module)
