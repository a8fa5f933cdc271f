"""Random numbers of keys as tensors, bit for bit those of numpy, on every device.

The values are those of :mod:`ipvit.perturb.seeding`. All arithmetic is that of 64-bit integers, which torch has with a
sign: products and sums wrap as without one, a shift to the right has what came in from the sign taken off, and an order
is that of the numbers with their sign bits flipped.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ipvit.perturb import seeding
from ipvit.perturb.tensors import from_numpy

_LOW = 2**32 - 1
_PHILOX_ROUNDS = 10


def random_words(key: np.ndarray, n: int, device: torch.device, skip: int = 0) -> Tensor:
    """Return the bits of :func:`ipvit.perturb.seeding.random_words` as int64, ``(B, n)``, made on a device."""
    state = _sent(key, device)
    step = torch.arange(skip + 1, skip + n + 1, device=state.device)
    z = state[:, None] + step * _signed(0x9E3779B97F4A7C15)
    z = (z ^ shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ shifted(z, 31)


def in_order(words: Tensor) -> Tensor:
    """Return int64 numbers that are in the order in which words are as numbers without sign."""
    return words ^ -(2**63)


def uniform(key: np.ndarray, size: tuple[int, ...], device: torch.device) -> Tensor:
    """Return what :func:`ipvit.perturb.seeding.generator` draws for each key in [0, 1), ``(B, *size)`` float32.

    On a processor numpy draws it; elsewhere Philox4x64-10 (Salmon et al. 2011) is computed for all keys at once.
    """
    if device.type == "cpu":
        return from_numpy(np.stack([seeding.generator(one).random(size, dtype=np.float32) for one in key]))
    return _philox_floats(_sent(key, device), math.prod(size)).view(-1, *size).to(device)


def _sent(key: np.ndarray, device: torch.device) -> Tensor:
    """Return keys on a device; on the processor where that is Apple's GPU, whose 64-bit products were not tried."""
    bits = from_numpy(np.ascontiguousarray(key, dtype=np.uint64).view(np.int64))
    return bits if device.type == "mps" else bits.to(device, non_blocking=True)


def _philox_floats(key: Tensor, n: int) -> Tensor:
    """Return the first ``n`` numbers in [0, 1) of numpy's Philox generator for each key, ``(B, n)`` float32.

    A round multiplies the words 0 and 2 and adds the keys; both lie in one tensor, ``(2, B, blocks)``, so that half as
    many operators are queued.
    """
    blocks = -(-n // 8)  # of four words, two numbers each
    counter = torch.arange(1, blocks + 1, device=key.device).expand(len(key), -1)
    multiplied = torch.stack([counter, torch.zeros_like(counter)])  # words 0 and 2
    others = torch.zeros_like(multiplied)  # words 1 and 3
    factors = _pair(0xD2E7470EE14C6C93, 0xCA5A826395121157, key.device)
    steps = _pair(0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B, key.device)
    keys = torch.stack([key, torch.zeros_like(key)])[:, :, None]
    for _ in range(_PHILOX_ROUNDS):
        high, low = _product(multiplied, factors)
        multiplied, others = high.flip(0) ^ others ^ keys, low.flip(0)
        keys = keys + steps
    drawn = torch.stack([multiplied[0], others[0], multiplied[1], others[1]], dim=2)
    halves = torch.stack([drawn & _LOW, shifted(drawn, 32)], dim=3).flatten(1)[:, :n]
    return (halves >> 8).to(torch.float32) * 2.0**-24


def _pair(first: int, second: int, device: torch.device) -> Tensor:
    """Return two 64-bit numbers as ``(2, 1, 1)``; they are filled in on the device, nothing is sent."""
    pair = torch.full((2, 1, 1), _signed(first), device=device)
    pair[1] = _signed(second)
    return pair


def _product(a: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Return the upper and lower 64 bits of a product of 64-bit numbers without sign, by halves of 32 bits."""
    a_high, a_low = shifted(a, 32), a & _LOW
    high, low = shifted(factor, 32), factor & _LOW
    crossed = torch.addcmul(shifted(a_low * low, 32), a_high, low)  # at most (2**32 - 1) * 2**32, so it fits
    other = torch.addcmul(crossed & _LOW, a_low, high)
    return torch.addcmul(shifted(crossed, 32) + shifted(other, 32), a_high, high), a * factor


def shifted(words: Tensor, bits: int) -> Tensor:
    """Return words shifted to the right as numbers without sign."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """Return the number with sign that has the same 64 bits."""
    return number - 2**64 if number >= 2**63 else number
