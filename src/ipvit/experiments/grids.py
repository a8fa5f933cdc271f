"""Grids over the image as parameters: ``14x14``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import BeforeValidator

from ipvit.errors import InputError

if TYPE_CHECKING:
    from ipvit.models.model import Model


def parse_grid(value: Any) -> str:
    """Return the canonical text ``ROWSxCOLUMNS`` of a grid given as ``"14x14"``, ``"14"``, ``14`` or ``[14, 14]``."""
    if isinstance(value, list | tuple):
        value = "x".join(map(str, cast("list[Any] | tuple[Any, ...]", value)))
    match = re.fullmatch(r"\s*(\d+)(?:\s*[x×]\s*(\d+))?\s*", str(value))
    if match is None or 0 in (numbers := [int(number) for number in match.groups(match[1])]):
        raise ValueError(f"a grid is written ROWSxCOLUMNS, for example 14x14, not {value!r}")
    return f"{numbers[0]}x{numbers[1]}"


Grid = Annotated[str, BeforeValidator(parse_grid)]
"""A grid over the image, written ``ROWSxCOLUMNS``."""


def rows_and_columns(grid: str) -> tuple[int, int]:
    """Return the two numbers of ``ROWSxCOLUMNS``."""
    rows, columns = grid.split("x")
    return int(rows), int(columns)


def check_grid(grid: str, model: Model) -> None:
    """Raise :class:`InputError` when the grid does not divide the model's input."""
    from ipvit.perturb.patchdrop import cell_size

    try:
        cell_size(model.image_size, rows_and_columns(grid))
    except ValueError as error:
        raise InputError(f"{model.name}: {error}") from None
