"""Answer spaces: among which answers a network chooses, and of which outputs each answer is made."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Literal

from ipvit.core.digests import digest_of_json

if TYPE_CHECKING:
    from torch import Tensor

Aggregate = Literal["mean", "max"]
"""What the probability of an answer is of those of its outputs: their mean, or the largest."""


@dataclasses.dataclass(frozen=True)
class AnswerSpace:
    """The answers that a network chooses among, each made of one or several of its outputs.

    >>> import torch
    >>> pets = AnswerSpace(("cat", "dog"), ((0, 2), (1,)), outputs=4)
    >>> pets.pooled(torch.tensor([[0.2, 0.4, 0.3, 0.1]]))
    tensor([[0.2500, 0.4000]])

    Attributes:
        names: of the answers, in their order.
        columns: for each answer the numbers of its outputs.
        outputs: how many outputs the network has.
        aggregate: what an answer's probability is of those of several outputs.
    """

    names: tuple[str, ...]
    columns: tuple[tuple[int, ...], ...]
    outputs: int
    aggregate: Aggregate = "mean"

    def __len__(self) -> int:
        return len(self.columns)

    @functools.cached_property
    def digest(self) -> str:
        """Digest (16 hex digits) of which outputs make which answer, and how; the names do not count."""
        return digest_of_json([self.columns, self.outputs, self.aggregate], 16)

    def pooled(self, probabilities: Tensor) -> Tensor:
        """Return the answers' shares ``(..., answers)`` of probabilities ``(..., outputs)``; they need not sum to 1."""
        import torch

        parts = [probabilities[..., list(columns)] for columns in self.columns]
        largest = self.aggregate == "max"
        return torch.stack([part.amax(dim=-1) if largest else part.mean(dim=-1) for part in parts], dim=-1)

    def scores(self, logits: Tensor) -> Tensor:
        """Return the logarithms of the answers' probabilities, less one constant for each image.

        Their softmax is the probability of each answer among the answers. Gradients flow through.

        Args:
            logits: ``(B, outputs)``.

        Returns:
            ``(B, answers)``.
        """
        import torch

        if all(len(columns) == 1 for columns in self.columns):
            return logits[:, [columns[0] for columns in self.columns]]
        parts = (logits[:, list(columns)] for columns in self.columns)
        if self.aggregate == "max":
            return torch.stack([part.amax(dim=1) for part in parts], dim=1)
        return torch.stack([part.logsumexp(dim=1) - math.log(part.shape[1]) for part in parts], dim=1)
