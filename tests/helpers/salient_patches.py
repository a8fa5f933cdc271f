"""Which patches are salient, written out for one image."""

import numpy as np
import torch

from helpers.plain_loops import vit_by_hand


def attention_of(network, pixels: torch.Tensor, head: str, block: int = -1) -> np.ndarray:
    """Attention from the class token to the patches in plain numbers, from the weights."""
    maps = [block.double().numpy() for block in vit_by_hand(network, pixels)["maps"]]
    if head == "rollout":
        total = np.eye(maps[0].shape[-1])
        for attention in maps:
            total = (0.5 * attention.mean(axis=0) + 0.5 * np.eye(len(total))) @ total
        return total[0, 1:]
    return maps[block].mean(axis=0)[0, 1:] if head == "mean" else maps[block][int(head)][0, 1:]


def least_salient(weights: np.ndarray, mass: float) -> set[int]:
    """The least salient patches, one after the other, as long as they hold no more than a mass."""
    taken: set[int] = set()
    held = 0.0
    for patch in sorted(range(len(weights)), key=lambda place: weights[place]):
        held += weights[patch] / weights.sum()
        if held > mass:
            break
        taken.add(patch)
    return taken
