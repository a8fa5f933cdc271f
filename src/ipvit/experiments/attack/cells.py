"""Replaced cells in one run: the most harmful ones by gradient and by search, those that draw attention, a control."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ipvit.errors import InputError
from ipvit.experiments.attack.conditions import CellCondition
from ipvit.experiments.attack.ensembles import can_be_attacked
from ipvit.experiments.attack.experiment import PAPER_GRID, Attack
from ipvit.experiments.attack.names import CELLS
from ipvit.experiments.attack.pixels import Keep
from ipvit.experiments.base import Batch, Records
from ipvit.experiments.grids import check_grid, rows_and_columns
from ipvit.experiments.scoring import score_logits
from ipvit.models.dry_pass import as_in_a_run
from ipvit.models.model import Model
from ipvit.perturb.attack import Attacked, Clean, attack_cells, clean_pass
from ipvit.perturb.seeding import keys

STEP = 0.1
"""Length of a painting step, in pixels from 0 to 1."""

RANDOM, GRADIENT, GREEDY, ATTENTION = "random", "gradient", "greedy", "attention"
"""How cells are chosen; attention takes those of gradient and paints them so that they also draw attention."""


def grid_of(asked: str, model: Model) -> str:
    """Return the grid that is asked for, else that of the network's own patches, else the paper's."""
    if asked or not model.can("attention"):
        return asked or PAPER_GRID
    rows, columns = model.adapter.patch_grid(model.image_size)
    return f"{rows}x{columns}"


class CellAttacks:
    """Attacks of an experiment that replace cells of a grid.

    Args:
        experiment: its parameters.
        models: of the study.

    Raises:
        InputError: a network's grid has fewer cells than are to be replaced, or more than its images have pixels.
    """

    def __init__(self, experiment: Attack, models: Sequence[Model]) -> None:
        self.experiment, self.models = experiment, tuple(models)
        self._reasons: dict[str, str] = {}
        for model in models if CELLS in experiment.attacks else ():
            grid = grid_of(experiment.cell_grid, model)
            check_grid(grid, model)
            rows, columns = rows_and_columns(grid)
            if max(experiment.cells) > rows * columns:
                raise InputError(
                    f"attack: {max(experiment.cells)} cells cannot be replaced on {model.name}, whose grid of {grid} "
                    f"has {rows * columns}; give fewer cells, or another cell_grid"
                )

    def conditions(self, model: Model) -> list[CellCondition]:
        """Return every number of cells x the ways in which they are chosen."""
        if CELLS not in self.experiment.attacks or not can_be_attacked(CELLS, model):
            return []
        choices = [RANDOM, GRADIENT, GREEDY, *(() if self._no_attention(model) else (ATTENTION,))]
        grid, steps = grid_of(self.experiment.cell_grid, model), self.experiment.cell_steps
        return [
            CellCondition(CELLS, steps=steps, step_size=STEP, grid=grid, choice=choice, cells=count)
            for count in sorted(self.experiment.cells)
            for choice in choices
        ]

    def notes(self, model: Model) -> list[str]:
        """Say why no cells are made that draw attention, and where cells are of other grids than another network's."""
        if not self.conditions(model):
            return []
        found: list[str] = []
        if reason := self._no_attention(model):
            found.append(f"attack: {model.name}: cells that draw attention left out: {reason}")
        mine, first = (grid_of(self.experiment.cell_grid, one) for one in (model, self.models[0]))
        if mine != first:
            found.append(
                f"attack: the cells of {model.name} are those of a grid of {mine}, of {self.models[0].name} {first}: "
                "as many cells are not the same share of the image; --cell-grid gives one for all"
            )
        return found

    def measure(self, model: Model, batch: Batch, conditions: Sequence[CellCondition], keep: Keep) -> Iterator[Records]:
        """Attack a batch in every way; all share the clean pass. What is found is also given to ``keep``."""
        for condition, found in self.attacked(model, batch, conditions):
            keep(model, batch, condition, found)
            yield Records(condition, score_logits(found.logits, batch.labels) | {"flat": found.zero_gradient})

    def attacked(
        self, model: Model, batch: Batch, conditions: Sequence[CellCondition]
    ) -> Iterator[tuple[CellCondition, Attacked]]:
        """Yield what each attack makes of a batch."""
        if not conditions:
            return
        clean = clean_pass(model, batch.images, batch.labels, gradient=False)
        for condition in conditions:
            yield condition, _attack(model, batch, condition, clean)

    def _no_attention(self, model: Model) -> str:
        """Return why no cells can be made that draw attention; empty where they can."""
        if model.digest not in self._reasons:
            self._reasons[model.digest] = why_no_attention(model, grid_of(self.experiment.cell_grid, model))
        return self._reasons[model.digest]


def _attack(model: Model, batch: Batch, condition: CellCondition, clean: Clean) -> Attacked:
    choice = condition.choice
    return attack_cells(
        model,
        batch.images,
        batch.labels,
        keys(batch.ids, batch.seed, "attack", CELLS),
        grid=rows_and_columns(condition.grid),
        count=condition.cells,
        choice="greedy" if choice == GREEDY else "random" if choice == RANDOM else "gradient",
        steps=condition.steps,
        step_size=condition.step_size,
        received=attention_received(model) if choice == ATTENTION else None,
        clean=clean,
    )


def why_no_attention(model: Model, grid: str) -> str:
    """Return why a network's attention cannot be drawn to cells of a grid; empty where it can. Takes a pass."""
    if reason := model.why_not("attention"):
        return reason
    rows, columns = model.adapter.patch_grid(model.image_size)
    if f"{rows}x{columns}" != grid:
        return f"its attention is among {rows}x{columns} patches, and the cells are of a grid of {grid}"
    with as_in_a_run(model), torch.inference_mode(False), torch.enable_grad():
        image = torch.full((1, 3, *model.image_size), 0.5, device=model.device, requires_grad=True)
        if not attention_received(model)(image).requires_grad:
            return "its attention has no gradient with respect to the image"
    return ""


def attention_received(model: Model) -> Callable[[Tensor], Tensor]:
    """Return a function from images to the share of the attention that each patch receives, ``(B, patches)``.

    It is the mean over all blocks that can be read, all heads and all tokens that ask.
    """
    blocks = model.adapter.attention_blocks

    def received(images: Tensor) -> Tensor:
        shares = [
            share[:, len(model.adapter.prefix_tokens_of(block)) :]
            for block, share in model.attention_received(images, blocks).items()
        ]
        return torch.stack(shares).mean(dim=0)

    return received
