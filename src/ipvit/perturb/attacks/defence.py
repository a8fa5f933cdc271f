"""PatchDrop as a defence: the majority over several random drops of patches."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from ipvit.perturb.attacks.common import Network
from ipvit.perturb.patchdrop import n_dropped, patchdrop, random_keep


class PatchDropVote(nn.Module):
    """A network that looks at every image several times, each time without other patches, and lets the looks vote.

    It draws random numbers, so two passes differ: attack it by averaging over draws (:func:`apgd` with ``draws``, the
    attack ``rand``), or its randomness hides what an attacker can do (Athalye et al. 2018).

    Args:
        network: images to logits.
        grid: rows and columns of patches.
        share: of the patches that is dropped each time.
        votes: looks an image.
        seed: of the drops.
    """

    def __init__(
        self, network: Network, grid: tuple[int, int], *, share: float = 0.5, votes: int = 9, seed: int = 0
    ) -> None:
        super().__init__()
        if votes < 1:
            raise ValueError(f"there must be at least one vote, not {votes}")
        self.network, self.grid, self.share, self.votes = network, grid, share, votes
        self._random = np.random.default_rng(seed)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, C)`` whose largest is the answer of most votes; ties go to the more probable one.

        Gradients are those of the mean probability's logarithm: votes have none.
        """
        cells = self.grid[0] * self.grid[1]
        drop = n_dropped(self.share, cells)
        probability, votes = images.new_zeros(()), images.new_zeros(())
        for _ in range(self.votes):
            key = self._random.integers(0, 2**63, len(images), dtype=np.int64).astype(np.uint64)
            keep = random_keep(key, self.grid, min(drop, cells - 1))
            logits = self.network(patchdrop(images, keep))
            probability = probability + logits.softmax(dim=1) / self.votes
            votes = votes + nn.functional.one_hot(logits.argmax(dim=1), logits.shape[1])
        soft = probability.clamp(min=1e-12).log()
        hard = votes + 0.5 * probability  # a vote counts for more than any difference in probability
        return soft + (hard - soft).detach()
