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
    """Raise :class:`InputError` when the grid has more rows or columns than the model's input has pixels."""
    from ipvit.perturb.cells import check_cells

    try:
        check_cells(model.image_size, rows_and_columns(grid))
    except ValueError as error:
        raise InputError(f"{model.name}: {error}") from None


def note_on_cells(experiment: str, grid: str, model: Model) -> list[str]:
    """Say of what sizes the cells are where the grid does not divide the model's input; nothing where it does."""
    import numpy as np

    from ipvit.perturb.cells import cell_borders, divides

    size, cells = model.image_size, rows_and_columns(grid)
    if divides(size, cells):
        return []
    found = {int(side) for pair in zip(size, cells, strict=True) for side in np.diff(cell_borders(*pair))}
    sizes = " or ".join(map(str, sorted(found)))
    text = f"{experiment}: cells of the grid {grid} are {sizes} pixels high and wide on {model.name}"
    if model.can("attention"):
        rows, columns = model.adapter.patch_grid(size)
        text += f", and cut its patches; {rows}x{columns} drops whole ones"
    return [text]


def check_equal_cells(grid: str, model: Model) -> None:
    """Raise :class:`InputError` when the grid does not divide the model's input into cells of one size."""
    from ipvit.perturb.cells import cell_size

    try:
        cell_size(model.image_size, rows_and_columns(grid))
    except ValueError as error:
        raise InputError(f"{model.name}: {error}") from None
