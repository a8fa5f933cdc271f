"""What comes back from a device in one copy is what was there, whatever its types, and checks put off are made."""

import numpy as np
import pytest
import torch

from ipvit.core.queued.deferred import check, deferred, forbid
from ipvit.core.queued.readback import _in_one_copy, _stretches, read_back

RANDOM = torch.Generator().manual_seed(0)

TENSORS = [
    torch.tensor([True, False, True]),
    torch.rand(3, generator=RANDOM),
    torch.rand(3, generator=RANDOM).double(),
    torch.tensor([1, -(2**40), 2**62]),
    torch.tensor([1, -2, 3], dtype=torch.int32),
    torch.rand(3, 2, 5, generator=RANDOM)[:, 1],
    torch.rand(3, generator=RANDOM).half(),
    torch.empty(0, 4),
    torch.tensor(7, dtype=torch.uint8),
]


def test_tensors_of_all_types_come_back_in_their_order_bit_for_bit():
    for found, tensor in zip(_in_one_copy(TENSORS), TENSORS, strict=True):
        assert found.dtype == tensor.numpy().dtype and np.array_equal(found, tensor.numpy())
    assert _in_one_copy([]) == []


def test_parts_of_one_column_come_back_as_one_stretch_in_any_order():
    column = torch.rand(12, generator=RANDOM)
    parts = [column[8:], TENSORS[3], column[:4], column[4:8]]
    assert sorted(map(sorted, _stretches(parts))) == [[0, 2, 3], [1]]
    overlapping = [*parts, column[2:6], column[::2], column[:4]]
    for found, part in zip(_in_one_copy(overlapping), overlapping, strict=True):
        assert np.array_equal(found, part.numpy())


def test_arrays_and_tensors_stand_side_by_side():
    (first, second) = read_back([{"a": TENSORS[1], "b": np.array(["x", "y", "z"])}, {"c": TENSORS[0]}])
    assert np.array_equal(first["a"], TENSORS[1].numpy()) and first["b"].tolist() == ["x", "y", "z"]
    assert second["c"].tolist() == [True, False, True]


def test_a_check_on_a_processor_is_made_at_once():
    with deferred() as checks, pytest.raises(ValueError, match="negative"):
        forbid(torch.tensor(-1.0) < 0, "negative")
    assert not checks.numbers


def test_checks_of_a_device_are_made_when_they_are_asked_for_in_their_order():
    judged: list[float] = []
    with deferred() as checks:
        for number in (3.0, 5.0):
            check(torch.empty((), device="meta"), lambda value, least=number: judged.append(value - least))
        assert judged == []
    assert checks.numbers["checks"].shape == (2,)
    checks.judge([4.0, 7.0])
    assert judged == [1.0, 2.0]
