"""PatchDrop as a defence: the majority over several random drops of patches, and an attack that knows of it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ipvit.perturb.attacks.apgd import Loss, apgd
from ipvit.perturb.attacks.common import Attacked, Clean, Network, Worst
from ipvit.perturb.attacks.losses import LEAST_ANSWERS
from ipvit.perturb.budget import Budget
from ipvit.perturb.patchdrop import n_dropped, patchdrop, random_keep
from ipvit.perturb.seeding import random_words


class PatchDropVote(nn.Module):
    """A network that looks at every image several times, each time without other patches, and lets the looks vote.

    It draws random numbers, so two passes differ, and an attack has to average over draws, or the defence's randomness
    hides what an attacker can do (Athalye et al. 2018): see :func:`attack_vote`. What it draws for an image follows
    from that image's key and the number of passes before, whatever other images there are.

    Args:
        network: images to logits.
        grid: rows and columns of patches.
        key: ``(B,)`` keys of the images of every pass, in their order.
        share: of the patches that is dropped each time; at least one stays.
        votes: looks an image.
        soft: answer with the logarithm of the looks' mean probability, which has a gradient as votes have none.
    """

    def __init__(
        self,
        network: Network,
        grid: tuple[int, int],
        key: np.ndarray,
        *,
        share: float = 0.5,
        votes: int = 9,
        soft: bool = False,
    ) -> None:
        super().__init__()
        if votes < 1:
            raise ValueError(f"there must be at least one vote, not {votes}")
        self.network, self.grid, self.votes, self.soft = network, grid, votes, soft
        self.dropped = min(n_dropped(share, grid[0] * grid[1]), grid[0] * grid[1] - 1)
        self._key, self._looks = key, 0
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, C)`` whose largest is the answer of most votes; ties go to the more probable one.

        Raises:
            ValueError: these are not as many images as there are keys.
        """
        if len(images) != len(self._key):
            raise ValueError(f"the vote has keys for {len(self._key)} images, not for {len(images)}")
        probability, votes = images.new_zeros(()), images.new_zeros(())
        for _ in range(self.votes):
            key = random_words(self._key, 1, skip=self._looks)[:, 0]
            self._looks += 1
            logits = self.network(patchdrop(images, random_keep(key, self.grid, self.dropped)))
            probability = probability + logits.softmax(dim=1) / self.votes
            votes = votes + nn.functional.one_hot(logits.argmax(dim=1), logits.shape[1])
        if self.soft:
            return probability.clamp(min=torch.finfo(probability.dtype).tiny).log()
        return votes + 0.5 * probability  # a vote counts for more than any difference in probability


def attack_vote(
    network: Network,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    key: np.ndarray,
    *,
    grid: tuple[int, int],
    share: float = 0.5,
    votes: int = 9,
    steps: int = 100,
    draws: int = 20,
) -> Attacked:
    """Attack a :class:`PatchDropVote` that one knows, as AutoAttack's ``rand`` does: APGD on the mean of many draws.

    What is climbed is the mean probability of the looks; what counts is a vote over drops that the attack has not seen.

    Args:
        network: the network whose looks vote; refused in training mode.
        images: ``(B, 3, H, W)`` in [0, 1].
        labels: ``(B,)``, -1 for an image without label, which is not attacked; or ``(B, C)`` booleans.
        budget: how far images may be moved, in linf, l2 or l1.
        key: ``(B,)`` keys, one for each image, from which drops and starts follow.
        grid: rows and columns of patches.
        share: of the patches that is dropped each time.
        votes: looks an image.
        steps: of APGD.
        draws: votes whose gradients are averaged.

    Raises:
        ValueError: the network is in training mode, or has no gradient.
    """
    own = random_words(key, 2)
    judge = PatchDropVote(network, grid, own[:, 0], share=share, votes=votes)
    with torch.no_grad():
        logits = judge(images)
    worst = Worst(images, labels, Clean(logits))
    for number, loss in enumerate(_losses(logits.shape[1])):
        rows = worst.still_right()
        if not len(rows):
            break
        mine = random_words(own[rows.cpu().numpy(), 1], 3, skip=3 * number)
        known = PatchDropVote(network, grid, mine[:, 0], share=share, votes=votes, soft=True)
        some = images[rows], labels[rows]
        found = apgd(known, *some, budget, mine[:, 1], loss=loss, steps=steps, draws=draws, clean=Clean(logits[rows]))
        with torch.no_grad():
            answers = PatchDropVote(network, grid, mine[:, 2], share=share, votes=votes)(found.images)
        worst.take(rows, found.images, answers)
        worst.zero_gradient[rows] |= found.zero_gradient
    return worst.found()


def _losses(answers: int) -> tuple[Loss, ...]:
    return ("ce", "dlr") if answers >= LEAST_ANSWERS["dlr"] else ("ce",)
