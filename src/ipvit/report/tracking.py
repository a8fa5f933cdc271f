"""The tables of a run in TensorBoard or Weights & Biases, through accelerate, as a training's log is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from ipvit.analysis.base import Analysis
from ipvit.report.tables.cells import levels_of

PROJECT = "ipvit"


def log_tables(
    tracker: str, out: Path, config: Mapping[str, Any], tables: Mapping[str, tuple[Analysis, pl.DataFrame]]
) -> None:
    """Log the main tables of a run: one curve for each model, measure and setting, with the ends of its interval.

    Args:
        tracker: ``tensorboard``, whose files go into the run folder, or ``wandb``.
        out: the run folder.
        config: the study, which the tracker shows beside the numbers.
        tables: main table of each experiment, with its analysis.
    """
    from accelerate import PartialState
    from accelerate.tracking import TensorBoardTracker, WandBTracker

    PartialState()  # accelerate's trackers ask it which process they are in
    log: Any = (
        TensorBoardTracker(PROJECT, logging_dir=out)
        if tracker == "tensorboard"
        else WandBTracker(PROJECT, name=out.name, dir=str(out))
    )
    log.start()
    log.store_init_configuration(_plain(config))
    for step, values in sorted(_by_step(tables).items()):
        log.log(values, step=step)
    log.finish()


def _by_step(tables: Mapping[str, tuple[Analysis, pl.DataFrame]]) -> dict[int, dict[str, float]]:
    """Return what is logged at every step; levels that are shares are steps in per cent, other levels their number."""
    found: dict[int, dict[str, float]] = {}
    for name, (analysis, table) in tables.items():
        level = next(iter(levels_of(table, analysis.columns)), None)
        measures = [column for column in table.columns if f"{column}_low" in table.columns]
        settings = [
            column
            for column in (table.columns[: table.columns.index("n_images")] if "n_images" in table.columns else [])
            if column not in (level, "model")
        ]
        for row in table.iter_rows(named=True):
            step = _step(row[level], table[level]) if level is not None else 0
            place = "/".join([str(row["model"]), *(str(row[s]) for s in settings if row[s] not in (None, ""))])
            for measure in measures:
                for end in ("", "_low", "_high"):
                    value = row[f"{measure}{end}"]
                    if value is not None and math.isfinite(value):
                        found.setdefault(step, {})[f"{name}/{measure}{end}/{place}"] = float(value)
    return found


def _step(value: Any, column: pl.Series) -> int:
    if not column.dtype.is_numeric():
        return column.unique(maintain_order=True).to_list().index(value)
    if column.dtype.is_float():
        return round(100 * value) if column.max() <= 1 else round(value)  # pyright: ignore[reportOperatorIssue]
    return int(value)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study as a tracker takes it: one level of names, and plain values."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": part for inner, part in _plain(value).items()}
        elif isinstance(value, list | tuple):
            flat |= _plain({f"{key}.{number}": part for number, part in enumerate(value)})
        else:
            flat[key] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat
