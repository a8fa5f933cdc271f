"""Kinds of fields that several experiments have."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import AfterValidator

_Item = TypeVar("_Item")


def _once(value: tuple[_Item, ...]) -> tuple[_Item, ...]:
    if not value:
        raise ValueError("at least one is needed")
    return tuple(dict.fromkeys(value))


Several = Annotated[tuple[_Item, ...], AfterValidator(_once)]
"""One value or more; what is given twice counts once."""
