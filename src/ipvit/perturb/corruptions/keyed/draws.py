"""Random numbers of a batch of keys: words of SplitMix64, taken one stretch after the other."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ipvit.perturb import seeding
from ipvit.perturb.tensor_words import random_words, shifted

_BITS = 16
SIXTEENTHS = 1 << _BITS
"""How many numbers there are of 16 bits."""


class Draws:
    """The random stream of each of ``B`` images; every image's numbers follow from its key alone.

    Words are taken apart as little-endian machines hold them, as all are that torch is built for.

    Args:
        key: ``(B,)`` uint64.
        device: where the numbers are to be.
    """

    def __init__(self, key: np.ndarray, device: torch.device) -> None:
        self._key = key
        self._device = device
        self._taken = 0

    def sixteens(self, *size: int) -> Tensor:
        """Return numbers from 0 to 65,535, ``(B, *size)`` int32: four of a word, its lowest bits first."""
        n = math.prod(size)
        halves = self._words(-(-n // 4)).view(torch.int16)[:, :n].to(torch.int32)
        return halves.bitwise_and_(SIXTEENTHS - 1).view(len(self._key), *size)

    def fractions(self, n: int) -> Tensor:
        """Return multiples of 2^-53 in [0, 1), ``(B, n)`` float64: the upper bits of a word each."""
        return shifted(self._words(n), 11).to(torch.float64).mul_(2.0**-53)

    def few(self, n: int) -> np.ndarray:
        """Return the same as an array, made on the processor, ``(B, n)``: for what decides about a whole image."""
        words = seeding.random_words(self._key, n, self._taken)
        self._taken += n
        return (words >> np.uint64(11)) * 2.0**-53

    def _words(self, n: int) -> Tensor:
        words = random_words(self._key, n, self._device, self._taken)
        self._taken += n
        return words
