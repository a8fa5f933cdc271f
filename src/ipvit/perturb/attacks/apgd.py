"""Auto-PGD: projected gradient ascent whose steps shorten by themselves (Croce and Hein 2020; in l1, 2021)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ipvit.perturb.attacks.balls import Ball, ball_around, sparse
from ipvit.perturb.attacks.common import (
    Attacked,
    Clean,
    Network,
    Worst,
    clean_pass,
    loss_and_gradient,
    margin_loss,
    refuse_training,
)
from ipvit.perturb.attacks.losses import (
    LEAST_ANSWERS,
    dlr_loss,
    likeliest_wrong,
    targeted_ce_loss,
    targeted_dlr_loss,
)
from ipvit.perturb.budget import Budget
from ipvit.perturb.seeding import random_words

Loss = Literal["ce", "dlr"]
"""Cross-entropy, or the difference of logits ratio."""

RowLoss = Callable[[Tensor, Tensor], Tensor]
"""Logits of some rows of a batch, and their numbers, to the loss that is climbed, ``(rows,)``."""

_FEW = 25
"""With fewer steps the first is as long as the budget, not twice as long: there is no time to halve it again. On 192
images and two bundled networks, at 5 and 10 steps and two budgets, this never left more right than PGD."""
_MOMENTUM = 0.75
_OFTEN_ENOUGH = 0.75
"""Share of the steps of a window that must raise the loss; else steps are halved."""
_WIDER = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))
"""In l1: multiples of the budget that are searched one after the other, and each one's share of the steps."""
_L1_SHORTEN, _L1_SHORTEST = 1.5, 10.0
_L1_SHRINKING = 0.95


def apgd(
    network: Network,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    key: np.ndarray,
    *,
    loss: Loss = "ce",
    steps: int = 100,
    restarts: int = 1,
    targets: int = 0,
    draws: int = 1,
    all_steps: bool = False,
    clean: Clean | None = None,
) -> Attacked:
    """Attack with Auto-PGD; only images that are still right go on.

    An image is given up as soon as the network is wrong about it in any way, also where a step aims at a target. With
    ``all_steps``, and with several draws, as another draw may be right again, it is not: what counts is the answer to
    the point of the highest mean loss, in one more pass that the attack has not seen.
    The first step is twice as long as the budget; with fewer than 25 steps it is as long, as there is no time to halve
    it.
    In l1 the first 60 % of the steps search balls three times and twice as large.

    Args:
        network: images to logits; refused in training mode.
        images: ``(B, 3, H, W)`` in [0, 1].
        labels: ``(B,)``, -1 for an image without label, which is not attacked; or ``(B, C)`` booleans.
        budget: how far images may be moved, in linf, l2 or l1.
        key: ``(B,)`` keys, one for each image, from which its starts follow.
        loss: cross-entropy, in the form that does not round to zero (:func:`margin_loss`), or DLR.
        steps: gradient steps for each start and target.
        restarts: starts for each target.
        targets: aim at so many of the likeliest wrong answers, one after the other; 0: at any wrong answer.
        draws: passes whose gradients and logits are averaged, for networks that draw random numbers (expectation
            over transformation, Athalye et al. 2018).
        all_steps: take all steps, also where the network is wrong already: for images that others are shown.
        clean: from :func:`clean_pass`; one pass serves every budget and attack.

    Raises:
        ValueError: the network is in training mode, has no gradient, or has too few answers for the loss.
    """
    if steps < 1 or restarts < 1 or draws < 1:
        raise ValueError(f"APGD needs at least one step, restart and draw, not {steps}, {restarts} and {draws}")
    refuse_training(network)
    clean = clean or clean_pass(network, images, labels, gradient=False)
    check_answers(clean.logits.shape[1], loss, targeted=targets > 0)
    worst = Worst(images, labels, clean)
    if budget.size == 0:
        return worst.found()
    aims = likeliest_wrong(clean.logits, labels, targets) if targets else None
    for number in range(restarts * (1 if aims is None else aims.shape[1])):
        rows = worst.still_right()
        if not len(rows):
            break
        target = None if aims is None else aims[:, number // restarts]
        run = _Run(network, worst, _row_loss(loss, labels, target), draws, all_steps or draws > 1)
        own = key[rows.cpu().numpy()]
        if number:  # the first start in linf is that of PGD with this key
            own = random_words(own, 1, skip=number)[:, 0]
        run.search(rows, ball_around(images[rows], budget), own, steps)
    return worst.found()


def check_answers(answers: int, loss: Loss, *, targeted: bool) -> None:
    """Check that a network has enough answers for a loss.

    Raises:
        ValueError: it has too few.
    """
    name = f"{loss}-t" if targeted else loss
    least = LEAST_ANSWERS.get(name, 2)
    if answers < least:
        which = "targeted DLR" if name == "dlr-t" else loss.upper()
        raise ValueError(f"{which} needs at least {least} answers, and the network has {answers}")


def window_lengths(steps: int) -> tuple[int, int, int]:
    """Return the length of the first window, by how much each is shorter than the one before, and the shortest."""
    return max(int(0.22 * steps), 1), max(int(0.03 * steps), 1), max(int(0.06 * steps), 1)


def _row_loss(loss: Loss, labels: Tensor, target: Tensor | None) -> RowLoss:
    if target is None:
        plain = margin_loss if loss == "ce" else dlr_loss
        return lambda logits, rows: plain(logits, labels[rows])
    if loss == "ce":
        return lambda logits, rows: targeted_ce_loss(logits, target[rows])
    return lambda logits, rows: targeted_dlr_loss(logits, labels[rows], target[rows])


@dataclasses.dataclass
class _State:
    """Where the images of a run are; every field has one row for each that is still right.

    ``share`` and ``nonzero`` are used in l1 alone: what share of the values a step changes, and how many differed from
    the original at the last window's end.
    """

    rows: Tensor
    x: Tensor
    before: Tensor
    gradient: Tensor
    loss: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    loss_at_window: Tensor
    length: Tensor
    shortened: Tensor
    rises: Tensor
    share: Tensor
    nonzero: Tensor

    def part(self, kept: Tensor) -> _State:
        """Return the state of some of the images."""
        fields = {field.name: getattr(self, field.name)[kept] for field in dataclasses.fields(self)}
        return _State(**fields)


@dataclasses.dataclass(frozen=True)
class _Run:
    """One start and one target of APGD."""

    network: Network
    worst: Worst
    loss: RowLoss
    draws: int
    all_steps: bool

    def search(self, rows: Tensor, ball: Ball, key: np.ndarray, steps: int) -> None:
        """Search a ball, in l1 after larger ones; what is found is kept in :attr:`worst`."""
        if ball.budget.norm != "l1" or steps < len(_WIDER):
            self._climb(rows, ball, ball.start(key), steps)
            return
        left = steps
        x = ball.resized(_WIDER[0][0] * ball.budget.size).start(key)
        for factor, share in _WIDER:
            here = ball.resized(factor * ball.budget.size) if factor != 1 else ball
            part = left if factor == 1 else max(int(share * steps), 1)
            # what is found further away than the budget allows does not count
            rows, best = self._climb(rows, here, here.settle(x), part, counts=factor == 1, began=factor != _WIDER[0][0])
            left -= part
            x = best

    def _climb(
        self, rows: Tensor, ball: Ball, start: Tensor, steps: int, *, counts: bool = True, began: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Climb from a start; return rows and their points of the highest loss."""
        logits, loss, gradient = self._pass(start, rows)
        state = self._begin(rows, ball, start, loss, gradient, began=began, few=steps < _FEW)
        if counts:
            self.worst.note_zero_gradient(rows, gradient)
            state, ball = self._take(state, ball, start, logits)
        window, less, shortest = (max(int(0.04 * steps), 1), 0, 1) if _l1(ball) else window_lengths(steps)
        since = 0
        for step in range(steps):
            if not len(state.rows):
                break
            self._move(state, ball, first=step == 0)
            if step == steps - 1:
                logits, loss = self._look(state.x, state.rows)
            else:
                logits, loss, state.gradient = self._pass(state.x, state.rows)
            _compare(state, loss)
            if counts:
                state, ball = self._take(state, ball, state.x, logits)
            since += 1
            if since == window:
                (_end_l1_window if _l1(ball) else _end_window)(state, ball, window)
                since, window = 0, max(window - less, shortest)
        if counts and self.all_steps and len(state.rows):
            with torch.no_grad():
                self.worst.take(state.rows, state.best, self.network(state.best))
        return state.rows, state.best

    def _begin(
        self, rows: Tensor, ball: Ball, x: Tensor, loss: Tensor, gradient: Tensor, *, began: bool, few: bool
    ) -> _State:
        size, values = ball.budget.size, x.shape[1:].numel()
        changed = (x != ball.images).flatten(1).sum(dim=1)
        return _State(
            rows=rows,
            x=x,
            before=x,
            gradient=gradient,
            loss=loss,
            best=x.clone(),
            best_gradient=gradient.clone(),
            best_loss=loss.clone(),
            loss_at_window=loss.clone(),
            length=torch.full_like(loss, size if _l1(ball) or few else 2 * size),
            shortened=torch.ones_like(loss, dtype=torch.bool),
            rises=torch.zeros_like(loss, dtype=torch.int64),
            share=changed / values / _L1_SHORTEN if began else torch.full_like(loss, 0.2),
            nonzero=changed if began else torch.full_like(changed, values),
        )

    def _move(self, state: _State, ball: Ball, *, first: bool) -> None:
        gradient = sparse(state.gradient, state.share) if _l1(ball) else state.gradient
        moved = state.x + state.length.view(-1, 1, 1, 1) * ball.direction(gradient)
        if not first and not _l1(ball):
            ahead = ball.project(moved)
            moved = state.x + _MOMENTUM * (ahead - state.x) + (1 - _MOMENTUM) * (state.x - state.before)
        state.before, state.x = state.x, ball.settle(moved)

    def _take(self, state: _State, ball: Ball, x: Tensor, logits: Tensor) -> tuple[_State, Ball]:
        """Keep what is worse than before, and drop the images that are no longer right; not with all steps."""
        if self.all_steps:
            return state, ball
        right = self.worst.take(state.rows, x, logits)
        if bool(right.all()):
            return state, ball
        kept = torch.where(right)[0]
        return state.part(kept), ball.part(kept)

    def _pass(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, loss and its gradient, each the mean of the draws."""
        found = [loss_and_gradient(self.network, x, lambda logits: self.loss(logits, rows)) for _ in range(self.draws)]
        logits, loss, gradient = found[0] if self.draws == 1 else map(_mean, zip(*found, strict=True))
        return logits, loss.nan_to_num(0.0), gradient

    def _look(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            logits = _mean([self.network(x) for _ in range(self.draws)])
            return logits, self.loss(logits, rows).nan_to_num(0.0)


def _mean(parts: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total / len(parts) if len(parts) > 1 else total


def _l1(ball: Ball) -> bool:
    return ball.budget.norm == "l1"


def _compare(state: _State, loss: Tensor) -> None:
    """Count whether a step raised the loss, and keep the best point."""
    state.rises += loss > state.loss
    state.loss = loss
    better = loss > state.best_loss
    state.best = torch.where(better.view(-1, 1, 1, 1), state.x, state.best)
    state.best_gradient = torch.where(better.view(-1, 1, 1, 1), state.gradient, state.best_gradient)
    state.best_loss = torch.where(better, loss, state.best_loss)


def _end_window(state: _State, _ball: Ball, window: int) -> None:
    """Halve the steps where they rose too rarely, or nothing came of them; go on from the best point there."""
    rare = state.rises <= _OFTEN_ENOUGH * window
    nothing = ~state.shortened & (state.loss_at_window >= state.best_loss)
    state.shortened = rare | nothing
    state.length = torch.where(state.shortened, state.length / 2, state.length)
    _return_to_best(state, state.shortened)
    state.loss_at_window = state.best_loss.clone()
    state.rises = torch.zeros_like(state.rises)


def _end_l1_window(state: _State, ball: Ball, _window: int) -> None:
    """Take the sparsity of the best points over; where it still grows start anew from them, else shorten the steps."""
    changed = (state.best != ball.images).flatten(1).sum(dim=1)
    sparser = changed / state.nonzero.clamp(min=1) < _L1_SHRINKING
    state.share = changed / ball.images.shape[1:].numel() / _L1_SHORTEN
    size = ball.budget.size
    state.length = torch.where(sparser, size, (state.length / _L1_SHORTEN).clamp(size / _L1_SHORTEST, size))
    state.nonzero = changed
    _return_to_best(state, sparser)


def _return_to_best(state: _State, which: Tensor) -> None:
    wide = which.view(-1, 1, 1, 1)
    state.x = torch.where(wide, state.best, state.x)
    state.before = torch.where(wide, state.best, state.before)
    state.gradient = torch.where(wide, state.best_gradient, state.gradient)
    state.loss = torch.where(which, state.best_loss, state.loss)
