"""Randomness that belongs to an image, not to a loop.

A key is a 64-bit number made from words (seed, experiment, condition, run) and an image's id. Everything random about
that image under that condition follows from the key alone, so batch size, worker count, order, device and the number
of machines cannot change it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def keys(ids: Sequence[str], *words: object) -> np.ndarray:
    """Return one 64-bit key per image id.

    Args:
        ids: the images' ids, ``B`` of them.
        words: whatever else the randomness depends on; compared by ``repr``.

    Returns:
        ``(B,)`` array of ``uint64``.
    """
    head = hashlib.blake2b(repr(words).encode(), digest_size=8)
    out = np.empty(len(ids), dtype=np.uint64)
    for row, image_id in enumerate(ids):
        digest = head.copy()
        digest.update(image_id.encode("utf-8", "surrogatepass"))
        out[row] = int.from_bytes(digest.digest(), "little")
    return out


def random_words(key: np.ndarray, n: int, skip: int = 0) -> np.ndarray:
    """Return ``n`` random 64-bit words per key (SplitMix64, Steele et al. 2014).

    Args:
        key: ``(B,)`` keys.
        n: words per key.
        skip: how many words to leave out before them.

    Returns:
        ``(B, n)`` array of ``uint64``; the first words do not depend on ``n``.
    """
    with np.errstate(over="ignore"):
        z = key[:, None] + _GAMMA * np.arange(skip + 1, skip + n + 1, dtype=np.uint64)[None, :]
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def random_order(key: np.ndarray, n: int) -> np.ndarray:
    """Return one uniformly random permutation of ``0..n-1`` per key, shape ``(B, n)``."""
    return np.argsort(random_words(key, n), axis=1, kind="stable")


def generator(key: np.uint64 | int) -> np.random.Generator:
    """Return numpy's Philox generator for one key, where a whole stream of numbers is needed."""
    return np.random.Generator(np.random.Philox(key=int(key)))
