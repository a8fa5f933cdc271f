"""Device, optimiser and schedules, from the libraries that have them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import ProjectConfiguration
from timm.optim import create_optimizer_v2, list_optimizers  # pyright: ignore[reportPrivateImportUsage]
from timm.scheduler.scheduler import Scheduler
from timm.scheduler.scheduler_factory import create_scheduler_v2
from timm.utils.clip_grad import dispatch_clip_grad
from torch import nn

from ipvit.core.trackers import check_tracker
from ipvit.errors import InputError, did_you_mean
from ipvit.training.recipe import FALLING, Recipe

_FUSED = ("adamw", "adam")
"""Optimisers of torch's that have one kernel for all weights on a GPU."""


def make_accelerator(precision: str, device: str, tracker: str | None = None, out: Path | None = None) -> Accelerator:
    """Return where and how the training runs: one process, or one of those that a launcher started.

    Args:
        precision: ``no``, ``bf16`` or ``fp16``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        tracker: ``tensorboard``, ``wandb`` or None.
        out: folder of TensorBoard's files.

    Raises:
        InputError: the device is not there, or the tracker's library is not installed.
    """
    known = ("auto", "cpu", "cuda", "mps")
    if device not in known:
        raise InputError(f"unknown device {device!r}: expected {', '.join(known)}")
    check_tracker(tracker)
    # Accelerate keeps the first device and precision of a process for ever, but a second training may want others.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())  # noqa: SLF001
    accelerator = Accelerator(
        cpu=device == "cpu",
        mixed_precision=precision,
        log_with=tracker,
        project_config=ProjectConfiguration(project_dir=str(out or ".")),
    )
    if device not in ("auto", accelerator.device.type):
        raise InputError(f"device {device!r} is not available here; found {accelerator.device.type!r}")
    return accelerator


def fit_for_device(module: nn.Module, accelerator: Accelerator) -> None:
    """Choose the faster of equal ways to compute.

    On a processor, attention by plain matrix products is nearly twice as fast in training as the fused kernel where
    bfloat16 has instructions of its own, and convolutions are faster with channels last.
    """
    fused: list[Any] = [part for part in module.modules() if hasattr(part, "fused_attn")]
    if accelerator.device.type == "cpu" and accelerator.mixed_precision == "bf16":
        for part in fused:
            part.fused_attn = False
    if not fused:
        module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def make_optimizer(
    recipe: Recipe, module: nn.Module, steps: int, images: int, *, fused: bool = False
) -> tuple[torch.optim.Optimizer, Scheduler]:
    """Return the optimiser and the schedule of its learning rate, stepped at each update.

    Args:
        recipe: names and values.
        module: what is optimised.
        steps: updates an epoch.
        images: images an update, over all processes.
        fused: update all weights in one kernel where torch has one for the optimiser.
    """
    if recipe.optimizer not in (known := [str(name) for name in list_optimizers()]):
        hint = did_you_mean(recipe.optimizer, known)
        raise InputError(f"timm has no optimizer {recipe.optimizer!r}.{hint}")
    scale = images / recipe.lr_batch if recipe.lr_batch else 1.0
    extra: Any = {"fused": True} if fused and recipe.optimizer in _FUSED else {}
    optimizer = create_optimizer_v2(
        module, opt=recipe.optimizer, lr=recipe.lr * scale, weight_decay=recipe.weight_decay, **extra
    )
    return optimizer, _schedule(recipe, optimizer, steps, scale)


def _schedule(recipe: Recipe, optimizer: torch.optim.Optimizer, steps: int, scale: float) -> Scheduler:
    if recipe.scheduler in FALLING and recipe.min_lr > recipe.lr * scale:
        raise InputError(
            f"min_lr ({recipe.min_lr:g}) is above the peak, {recipe.lr * scale:.2g}: lr ({recipe.lr:g}) is for updates "
            f"of {recipe.lr_batch} images, here they have {round((recipe.lr_batch or 1) * scale)}; lower min_lr"
        )
    warmup_lr = scale * recipe.lr / 100 if recipe.warmup_lr is None else recipe.warmup_lr
    if recipe.scheduler == "dino":
        return AfterWarmup(optimizer, recipe.epochs * steps, recipe.min_lr, recipe.warmup_epochs * steps, warmup_lr)
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=recipe.scheduler,
        num_epochs=recipe.epochs,
        warmup_epochs=recipe.warmup_epochs,
        warmup_lr=warmup_lr,
        min_lr=recipe.min_lr,
        decay_epochs=recipe.decay_epochs or recipe.epochs,  # only a stepwise schedule looks at it
        decay_milestones=list(recipe.decay_milestones or ()),
        decay_rate=recipe.decay_rate or (1.0 if recipe.scheduler == "poly" else 0.1),
        step_on_epochs=False,
        updates_per_epoch=steps,
    )
    assert scheduler is not None  # only for a name timm does not know, and the recipe allows none of those
    return scheduler


class AfterWarmup(Scheduler):
    """DINO's learning rate: a straight line up, then half a cosine over the updates that are left.

    Args:
        optimizer: whose rate it is.
        updates: all of them.
        last: rate that the cosine ends at.
        warmup: updates of the warm-up; the last of them has the peak.
        first: rate of the first update.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, updates: int, last: float, warmup: int, first: float) -> None:
        super().__init__(optimizer, param_group_field="lr", t_in_epochs=False)
        self._updates, self._last, self._warmup, self._first = updates, last, warmup, first

    def _get_lr(self, t: int) -> list[float]:
        if t < self._warmup:
            share = t / max(self._warmup - 1, 1)
            return [self._first + share * (peak - self._first) for peak in self.base_values]
        left = self._updates - self._warmup
        return [cosine(peak, self._last, t - self._warmup, left) for peak in self.base_values]


def set_weight_decay(optimizer: Any, start: float, end: float, step: int, steps: int) -> None:
    """Move the decay of those weights that have one along half a cosine, as DINO does."""
    value = cosine(start, end, step, steps)
    for group in optimizer.param_groups:
        if group["weight_decay"] > 0:
            group["weight_decay"] = value


def clip_gradients(weights: Iterable[nn.Parameter], most: float, mode: str) -> None:
    """Make gradients smaller where they are too large, in one of the ways that ``clip_mode`` names.

    Args:
        weights: with their gradients, not scaled.
        most: largest norm, or number.
        mode: ``norm``, ``parameter``, ``value`` or ``agc``.
    """
    if mode != "parameter":
        dispatch_clip_grad(weights, most, mode)
        return
    for weight in weights:  # DINO's, to the letter
        if weight.grad is not None:
            share = most / (weight.grad.norm(2) + 1e-6)
            weight.grad.mul_(share.clamp(max=1.0))


def cosine(start: float, end: float, step: int, steps: int) -> float:
    """Return the value after ``step`` of ``steps`` on half a cosine from ``start`` to ``end``."""
    return end + (start - end) * (1 + math.cos(math.pi * min(step / max(steps, 1), 1.0))) / 2
