"""The recipes that come with the package."""

from __future__ import annotations

from pathlib import Path

RECIPES = Path(__file__).with_name("recipes")

_ONLY_TRIED = (
    "tin50_dino_micro",
    "tin50_dino_micro_sin",
    "tin50_dino_micro_shape_global",
)
"""Small networks that nobody has trained to the end yet."""

_SMALL = ("_micro", "_nano")
"""What names of recipes that a laptop trains have in them; nano networks learn for minutes."""


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_summary(name: str) -> str:
    """Return the first line of a recipe's file: what it trains."""
    first = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip()


def ran_to_end(name: str) -> bool:
    """Tell whether a recipe was run to its end; the others were built and took two updates in a dry run.

    Those that were trained small networks: the bundled ones, and those that a measurement in the docs is of.
    """
    return any(size in name for size in _SMALL) and name not in _ONLY_TRIED
