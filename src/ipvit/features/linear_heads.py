"""Linear heads on stored features: any number at once, by L-BFGS or by gradient steps (section 3.5).

Heads that are fitted together share the passes over the features and nothing else: each has its own line search, its
own moments, its own hyper-parameters, and ends where it would have ended alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ipvit.features.store import Features
from ipvit.metrics.exact import double
from ipvit.models.readout import FeatureSpec

MEMORY = 2**30
"""Bytes of features that are kept in memory."""

TOLERANCE = 1e-5
"""L-BFGS goes on as long as a component of the gradient is larger, whatever the penalty."""

GAP = 1e-4
"""Share of the objective by which a head that is done may lie above its minimum, see :func:`_is_done`."""

MOST_STEPS = 1000
"""Steps after which L-BFGS gives up; heads with a penalty of 1e-5 were seen to take a few hundred."""

STOPPING = 2
"""Of the rule when a head is done; the first looked at the gradient alone, and called weak penalties done too soon."""

_CELLS = 2**24  # logits that are computed at once


class Inputs:
    """What heads read: vectors of some images side by side, standardised.

    Args:
        parts: features of one or several data sets, one after the other.
        specs: the vectors, in the order of the columns.
        rows: which images, counted through all parts; all by default.
        like: standardise by the mean and deviation of other inputs; by these inputs' own by default.
        standardise: subtract the mean and divide by the standard deviation of every column.
        device: where the heads are.
        memory: bytes; larger inputs are read from disk in every pass.
    """

    def __init__(
        self,
        parts: Sequence[Features],
        specs: Sequence[FeatureSpec],
        rows: NDArray[np.integer] | None = None,
        *,
        like: Inputs | None = None,
        standardise: bool = True,
        device: torch.device | str = "cpu",
        memory: int = MEMORY,
    ) -> None:
        self._parts = list(parts)
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self._rows = np.arange(self._starts[-1]) if rows is None else np.asarray(rows, dtype=np.int64)
        self.specs = tuple(specs)
        self.device = torch.device(device)
        self.width = parts[0].width(specs)
        self._whole: Tensor | None = None
        if len(self) * self.width * 4 <= memory:
            self._whole = torch.from_numpy(self._read(self._rows)).to(self.device)
        self.mean = torch.zeros(self.width, device=self.device)
        self.scale = torch.ones(self.width, device=self.device)
        if like is not None:
            self.mean, self.scale = like.mean, like.scale
        elif standardise:
            self.mean, self.scale = self._moments()
        if self._whole is not None:
            self._whole = (self._whole - self.mean) / self.scale

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, index: slice | NDArray[np.integer]) -> Tensor:
        """Return ``(n, width)`` float32."""
        if self._whole is not None:
            return self._whole[index if isinstance(index, slice) else torch.from_numpy(index).to(self.device)]
        return (torch.from_numpy(self._read(self._rows[index])).to(self.device) - self.mean) / self.scale

    def _read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        found = np.empty((len(rows), self.width), dtype=np.float32)
        part = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(part):
            here = np.flatnonzero(part == number)
            found[here] = self._parts[number].matrix(self.specs, rows[here] - self._starts[number])
        return found

    def _moments(self) -> tuple[Tensor, Tensor]:
        total = sum((double(raw).sum(dim=0) for raw in self._raw()), torch.zeros(()))
        mean = total / len(self)
        squares = sum(((double(raw) - mean).square().sum(dim=0) for raw in self._raw()), torch.zeros(()))
        deviation = (squares / len(self)).sqrt()
        constant = deviation <= 1e-6 * mean.abs().clamp(min=1.0)  # such a column says nothing, whatever it is scaled by
        scale = torch.where(constant, 1.0, deviation)
        return mean.float().to(self.device), scale.float().to(self.device)

    def _raw(self) -> Iterator[Tensor]:
        if self._whole is not None:
            yield self._whole
            return
        for start in range(0, len(self), 4096):
            yield torch.from_numpy(self._read(self._rows[start : start + 4096])).to(self.device)


@dataclasses.dataclass(frozen=True)
class Heads:
    """K heads on the same inputs.

    Attributes:
        weight: ``(K, C, D)``, for standardised inputs.
        bias: ``(K, C)``.
        converged: ``(K,)`` bool: as good as at the minimum (L-BFGS), or all steps were made.
        steps: ``(K,)`` int64: how many were made.
        steepest: ``(K,)`` the largest component of the gradient at the end; NaN where it was not followed to its end.
    """

    weight: Tensor
    bias: Tensor
    converged: Tensor
    steps: Tensor
    steepest: Tensor

    def plain(self, number: int, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return one head's weight ``(C, D)`` and bias ``(C,)`` for features that are not standardised."""
        weight, bias, mean, scale = (
            value.cpu().double() for value in (self.weight[number], self.bias[number], inputs.mean, inputs.scale)
        )
        weight = weight / scale
        return weight.float(), (bias - weight @ mean).float()

    @torch.no_grad()
    def evaluate(self, inputs: Inputs, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return each head's accuracy in [0, 1] and mean cross entropy, ``(K,)`` each."""
        heads, classes = self.bias.shape
        correct = torch.zeros(heads, dtype=torch.float64)
        entropy = torch.zeros_like(correct)
        size = _chunk(heads, classes)
        for start in range(0, len(inputs), size):
            logits = _logits(inputs.rows(slice(start, start + size)), self.weight, self.bias)
            wanted = labels[start : start + size].to(logits.device)
            correct += (logits.argmax(dim=2) == wanted[:, None]).sum(dim=0).cpu()
            chosen = logits.log_softmax(dim=2).gather(2, wanted[:, None, None].expand(-1, heads, 1))
            entropy -= double(chosen.squeeze(2)).sum(dim=0).cpu()
        return correct / len(inputs), entropy / len(inputs)


def _logits(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    heads, classes, width = weight.shape
    with torch.autocast(rows.device.type, enabled=False):
        return (rows @ weight.reshape(heads * classes, width).T).unflatten(1, (heads, classes)) + bias


def _chunk(heads: int, classes: int) -> int:
    return max(1, _CELLS // (heads * classes))


@torch.no_grad()
def fit_logistic(
    inputs: Inputs,
    labels: Tensor,
    classes: int,
    penalties: Sequence[float],
    *,
    tolerance: float = TOLERANCE,
    most_steps: int = MOST_STEPS,
    memory: int = 10,
) -> Heads:
    """Fit multinomial logistic regression by L-BFGS, one head per penalty.

    Minimises the mean cross entropy plus ``penalty / 2`` times the squared weights; the bias is free. In the words of
    scikit-learn, ``C = 1 / (penalty * N)``.

    Args:
        inputs: N vectors of width D.
        labels: ``(N,)`` int64 in [0, classes).
        classes: number of outputs C.
        penalties: one per head.
        tolerance: a head is not done as long as a component of its gradient is larger; see also :data:`GAP`.
        most_steps: so many steps at most.
        memory: pairs of steps and gradients that approximate the curvature.
    """
    most = max(1, MEMORY // (8 * memory * classes * (inputs.width + 1)))  # heads whose pairs fit into memory
    groups = [
        _fit_group(inputs, labels, classes, penalties[i : i + most], tolerance, most_steps, memory)
        for i in range(0, len(penalties), most)
    ]
    return Heads(*(torch.cat([getattr(group, field.name) for group in groups]) for field in dataclasses.fields(Heads)))


def _fit_group(
    inputs: Inputs, labels: Tensor, classes: int, penalties: Sequence[float], tolerance: float, steps: int, memory: int
) -> Heads:
    objective = _HeadLoss(inputs, labels, classes, torch.tensor(penalties, device=inputs.device))
    point = torch.zeros(len(penalties), classes * (inputs.width + 1), device=inputs.device)
    everyone = torch.arange(len(penalties))
    loss, gradient = objective(point, everyone)
    curvature = _Curvature(memory)
    stuck = torch.zeros(len(penalties), dtype=torch.bool)
    made = torch.zeros(len(penalties), dtype=torch.int64)
    for _ in range(steps):
        going = everyone[~stuck & ~_is_done(gradient, loss, objective.penalties, tolerance)]
        if not len(going):
            break
        direction = curvature.direction(gradient)
        slope = (direction * gradient).sum(dim=1).cpu().double()
        length = torch.ones_like(loss) if curvature.known else (1 / gradient.norm(dim=1).cpu().double()).clamp(max=1.0)
        before, before_gradient = point.clone(), gradient.clone()
        searching = going
        for _ in range(20):  # halve the step of the heads that did not descend enough
            trial = before[searching] + length[searching, None].float().to(inputs.device) * direction[searching]
            new_loss, new_gradient = objective(trial, searching)
            noise = 1e-7 * loss[searching].abs()  # of logits in float32; without it heads get stuck near the end
            enough = new_loss <= loss[searching] + noise + 1e-4 * length[searching] * slope[searching]
            accepted = searching[enough]
            point[accepted], gradient[accepted] = trial[enough], new_gradient[enough]
            loss[accepted] = new_loss[enough]
            searching = searching[~enough]
            if not len(searching):
                break
            length[searching] *= 0.5
        stuck[searching] = True  # no shorter step descends: as far as float32 goes
        made[going] += 1
        curvature.learn(point - before, gradient - before_gradient)
    weight, bias = objective.split(point)
    steepest = _steepest(gradient)
    return Heads(weight, bias, _is_done(gradient, loss, objective.penalties, tolerance), made, steepest)


def _is_done(gradient: Tensor, loss: Tensor, penalties: Tensor, tolerance: float) -> Tensor:
    """Tell which heads are as good as at their minimum, ``(K,)`` bool.

    The objective curves at least as much as its penalty. A gradient g therefore leaves at most ``|g|^2 / (2 penalty)``
    to gain (Boyd and Vandenberghe, Convex Optimization, section 9.1.2), which must be a small share of the objective:
    with a penalty of 1e-5 a gradient may be a hundredth of what it may be with 0.1.
    """
    left = double(gradient).square().sum(dim=1).cpu() / (2 * penalties.cpu().double())
    return (_steepest(gradient) <= tolerance) & (left <= GAP * loss)


def _steepest(gradient: Tensor) -> Tensor:
    return gradient.abs().amax(dim=1).cpu()


class _HeadLoss:
    """Penalised cross entropy and its gradient, for some of the heads."""

    def __init__(self, inputs: Inputs, labels: Tensor, classes: int, penalties: Tensor) -> None:
        self.inputs, self.classes, self.penalties = inputs, classes, penalties
        self.labels = labels.to(inputs.device)

    def split(self, point: Tensor) -> tuple[Tensor, Tensor]:
        return (
            point[:, : self.classes * self.inputs.width].unflatten(1, (self.classes, self.inputs.width)),
            point[:, self.classes * self.inputs.width :],
        )

    def __call__(self, point: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses (float64, on the CPU) and gradients of heads at a point ``(len(which), P)``."""
        weight, bias = self.split(point)
        gradient = torch.zeros_like(point)
        of_weight, of_bias = self.split(gradient)
        loss = torch.zeros(len(point), dtype=torch.float64)
        size = _chunk(len(point), self.classes)
        for start in range(0, len(self.inputs), size):
            rows = self.inputs.rows(slice(start, start + size))
            wanted = self.labels[start : start + size]
            logits = _logits(rows, weight, bias)
            at = wanted[:, None, None].expand(-1, len(point), 1)
            # against the right class: where that is nearly certain, 1 - p has no digits left in float32, the rest has
            behind = (logits - logits.gather(2, at)).scatter_(2, at, -torch.inf)
            rest = behind.logsumexp(dim=2)
            entropy = nn.functional.softplus(rest)
            loss += double(entropy).sum(dim=0).cpu()
            error = (behind - entropy[..., None]).exp_().scatter_(2, at, -rest.sigmoid()[..., None])
            with torch.autocast(rows.device.type, enabled=False):
                of_weight += (error.flatten(1).T @ rows).unflatten(0, (len(point), self.classes))
            of_bias += error.sum(dim=0)
        gradient /= len(self.inputs)
        penalty = self.penalties[which]
        of_weight += penalty[:, None, None] * weight
        squares = double(weight).square().sum(dim=(1, 2)).cpu()
        return loss / len(self.inputs) + penalty.cpu().double() / 2 * squares, gradient


class _Curvature:
    """The two-loop recursion of L-BFGS (Nocedal 1980), for every head on its own."""

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self._scales: list[tuple[Tensor, Tensor]] = []

    @property
    def known(self) -> bool:
        return bool(self.pairs)

    def learn(self, step: Tensor, change: Tensor) -> None:
        curvature, length = (step * change).sum(dim=1), change.square().sum(dim=1)
        usable = curvature > 1e-10 * length.clamp(min=1e-30)
        inverse = torch.where(usable, 1 / torch.where(usable, curvature, 1.0), 0.0)
        usable = inverse > 0
        scale = 1 / torch.where(usable, inverse * length, 1.0)
        self.pairs = [*self.pairs, (step, change, inverse)][-self.memory :]
        self._scales = [*self._scales, (usable, scale)][-self.memory :]

    def direction(self, gradient: Tensor) -> Tensor:
        result = -gradient
        shares = []
        for step, change, inverse in reversed(self.pairs):
            share = inverse * (step * result).sum(dim=1)
            result = result - share[:, None] * change
            shares.append(share)
        result = result * self._scale(gradient)[:, None]
        for (step, change, inverse), share in zip(self.pairs, reversed(shares), strict=True):
            result = result + (share - inverse * (change * result).sum(dim=1))[:, None] * step
        return result

    def _scale(self, gradient: Tensor) -> Tensor:
        """The newest usable pair of each head says how long a step should be."""
        scale = gradient.new_ones(len(gradient))
        for usable, known in self._scales:
            scale = torch.where(usable, known, scale)
        return scale


@dataclasses.dataclass(frozen=True)
class HeadRecipe:
    """How heads are trained by gradient steps.

    Attributes:
        optimiser: ``sgd`` (momentum 0.9) or ``adamw``; the bias is not decayed.
        epochs: passes over the data.
        batch: images a step; what is left over at the end of an epoch waits for the next one's order.
        schedule: ``cosine`` to zero, or ``constant``.
        initial_deviation: of the weights at the start.
        seed: of the order of the images and of the start.
    """

    optimiser: Literal["sgd", "adamw"] = "sgd"
    epochs: int = 30
    batch: int = 256
    schedule: Literal["cosine", "constant"] = "cosine"
    initial_deviation: float = 0.0
    seed: int = 0


@torch.no_grad()
def fit_by_steps(
    several: Sequence[Inputs],
    labels: Tensor,
    classes: int,
    settings: Sequence[Sequence[tuple[float, float]]],
    recipe: HeadRecipe,
) -> list[Heads]:
    """Train heads on several inputs in one pass over the images, one head per learning rate and weight decay.

    Args:
        several: different vectors of the same N images.
        labels: ``(N,)`` int64 in [0, classes).
        classes: number of outputs.
        settings: per inputs, the (learning rate, weight decay) of every head.
        recipe: how.
    """
    n = len(labels)
    batch = min(recipe.batch, n)
    per_epoch = n // batch
    trainers = [
        _Trainer(inputs, classes, pairs, recipe, recipe.epochs * per_epoch)
        for inputs, pairs in zip(several, settings, strict=True)
    ]
    step = 0
    for epoch in range(recipe.epochs):
        order = np.random.default_rng((recipe.seed, epoch)).permutation(n)
        for start in range(0, per_epoch * batch, batch):
            rows = order[start : start + batch]
            wanted = labels[torch.from_numpy(rows)]
            for trainer in trainers:
                trainer.step(rows, wanted, step)
            step += 1
    return [trainer.heads() for trainer in trainers]


class _Trainer:
    """The heads on one kind of inputs."""

    def __init__(
        self, inputs: Inputs, classes: int, pairs: Sequence[tuple[float, float]], recipe: HeadRecipe, steps: int
    ) -> None:
        self.inputs, self.recipe, self.steps = inputs, recipe, steps
        rates = torch.tensor(pairs, device=inputs.device)
        self.rate, self.decay = rates[:, 0, None, None], rates[:, 1, None, None]
        start = torch.zeros(classes, inputs.width)
        if recipe.initial_deviation:
            generator = torch.Generator().manual_seed(recipe.seed)
            nn.init.trunc_normal_(start, std=recipe.initial_deviation, generator=generator)
        self.weight = start.to(inputs.device).expand(len(pairs), -1, -1).clone()
        self.bias = torch.zeros(len(pairs), classes, 1, device=inputs.device)
        self.moments = [[torch.zeros_like(value) for value in (self.weight, self.bias)] for _ in range(2)]

    def step(self, rows: NDArray[np.integer], labels: Tensor, step: int) -> None:
        vectors = self.inputs.rows(rows)
        error = _logits(vectors, self.weight, self.bias.squeeze(2)).softmax(dim=2)
        at = labels.to(vectors.device)[:, None, None].expand(-1, error.shape[1], 1)
        error = error.scatter_add_(2, at, -torch.ones_like(at, dtype=error.dtype)) / len(rows)
        with torch.autocast(vectors.device.type, enabled=False):
            of_weight = (error.flatten(1).T @ vectors).unflatten(0, error.shape[1:])
        share = 0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.recipe.schedule == "cosine" else 1.0
        update = self._sgd if self.recipe.optimiser == "sgd" else self._adamw
        update(0, self.weight, of_weight, self.rate * share, self.decay, step)
        update(1, self.bias, error.sum(dim=0).unsqueeze(2), self.rate * share, torch.zeros_like(self.decay), step)

    def heads(self) -> Heads:
        n = len(self.weight)
        return Heads(
            self.weight,
            self.bias.squeeze(2),
            torch.ones(n, dtype=torch.bool),
            steps=torch.full((n,), self.steps),
            steepest=torch.full((n,), torch.nan),
        )

    def _sgd(self, place: int, value: Tensor, gradient: Tensor, rate: Tensor, decay: Tensor, _: int) -> None:
        momentum = self.moments[0][place]
        momentum.mul_(0.9).add_(gradient + decay * value)
        value.sub_(rate * momentum)

    def _adamw(self, place: int, value: Tensor, gradient: Tensor, rate: Tensor, decay: Tensor, step: int) -> None:
        first, second = (moments[place] for moments in self.moments)
        first.lerp_(gradient, 0.1)
        second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        value.mul_(1 - rate * decay)
        scaled = (second / (1 - 0.999 ** (step + 1))).sqrt_().add_(1e-8)
        value.sub_(rate / (1 - 0.9 ** (step + 1)) * first / scaled)
