"""Kinds of fields that several experiments have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

from pydantic import AfterValidator, PlainSerializer, WrapValidator

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset

_Item = TypeVar("_Item")


def _once(value: tuple[_Item, ...]) -> tuple[_Item, ...]:
    if not value:
        raise ValueError("at least one is needed")
    return tuple(dict.fromkeys(value))


Several = Annotated[tuple[_Item, ...], AfterValidator(_once)]
"""One value or more; what is given twice counts once."""


def _data(value: Any, handler: Any) -> Any:
    if isinstance(value, str | Path):
        return handler(str(value))
    from ipvit.data.dataset import Dataset

    return value if isinstance(value, Dataset) else handler(value)


def data_name(value: Any) -> str:
    """Return the name of data that are given by it, or as a data set."""
    return value if isinstance(value, str) else value.name


if TYPE_CHECKING:
    DataSource: TypeAlias = str | Path | Dataset
else:
    DataSource = Annotated[str, WrapValidator(_data), PlainSerializer(data_name)]
    """A data name; from Python also a data set itself."""
