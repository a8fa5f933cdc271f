"""What is made on a device from keys is what numpy makes, bit for bit.

There is no GPU here: the same tensor operations run on a processor, whose integers are those of every device.
"""

from typing import Any

import numpy as np
import pytest
import torch

from ipvit.perturb import on_device, tensor_words
from ipvit.perturb.patchdrop import bernoulli_keep, random_keep
from ipvit.perturb.seeding import generator, keys, random_order, random_words


class Elsewhere:
    """A processor that says that it is no processor, so that nothing is left to numpy."""

    type = "elsewhere"


ELSEWHERE: Any = Elsewhere()
KEYS = np.concatenate([keys([str(i) for i in range(61)], 0, "test"), np.array([0, 2**64 - 1, 2**63], np.uint64)])


@pytest.fixture(autouse=True)
def stay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def to(self: torch.Tensor, target: Any, *arguments: Any, **options: Any) -> torch.Tensor:
        return self if target is ELSEWHERE else plain(self, target, *arguments, **options)

    plain, ones = torch.Tensor.to, torch.ones
    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch, "ones", lambda *size, device=None, **options: ones(*size, **options))


def test_words_are_those_of_numpy():
    found = tensor_words.random_words(KEYS, 300, ELSEWHERE).numpy().view(np.uint64)
    assert (found == random_words(KEYS, 300)).all()


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (14, 14), (40, 30)])
def test_random_masks_are_those_of_numpy_at_every_share(grid):
    n = grid[0] * grid[1]
    for n_drop in sorted({0, 1, n // 3, n - 1, n}):
        found = on_device.random_keep(KEYS, grid, n_drop, ELSEWHERE)
        assert torch.equal(found, torch.from_numpy(random_keep(KEYS, grid, n_drop)))


@pytest.mark.parametrize("device", [ELSEWHERE, torch.device("cpu")])
def test_masks_of_single_pixels_are_those_of_numpy(device):
    found = on_device.random_keep(KEYS[:3], (64, 64), 1234, device)
    assert torch.equal(found, torch.from_numpy(random_keep(KEYS[:3], (64, 64), 1234)))


@pytest.mark.parametrize("rate", [0.0, 0.1, 1 / 3, 0.5, 1.0])
def test_masks_by_chance_are_those_of_numpy(rate):
    found = on_device.bernoulli_keep(KEYS, (9, 11), rate, ELSEWHERE)
    assert torch.equal(found, torch.from_numpy(bernoulli_keep(KEYS, (9, 11), rate)))


@pytest.mark.parametrize("n", [1, 4, 256])
def test_orders_are_those_of_numpy(n):
    assert torch.equal(on_device.random_order(KEYS, n, ELSEWHERE), torch.from_numpy(random_order(KEYS, n)))


@pytest.mark.parametrize("size", [(3,), (3, 5, 7), (3, 32, 32)])
def test_noise_is_that_of_numpys_philox(size):
    by_numpy = np.stack([generator(key).random(size, dtype=np.float32) for key in KEYS])
    for device in (ELSEWHERE, torch.device("cpu")):
        found = tensor_words.uniform(KEYS, size, device)
        assert found.dtype == torch.float32 and (found.numpy() == by_numpy).all()


@pytest.mark.parametrize(("n_drop", "words"), [(-1, "cannot drop -1 cells"), (5, "cannot drop 5 cells")])
def test_a_number_that_cannot_be_dropped_is_refused(n_drop, words):
    with pytest.raises(ValueError, match=words):
        on_device.random_keep(KEYS, (2, 2), n_drop, ELSEWHERE)


def test_a_probability_above_one_is_refused():
    with pytest.raises(ValueError, match="not 1.5"):
        on_device.bernoulli_keep(KEYS, (2, 2), 1.5, ELSEWHERE)
