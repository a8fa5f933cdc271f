"""Contracts for plug-ins: each check holds one of yours to what ipvit relies on, and says what it breaks.

They need no test framework: a check returns None, or raises a :class:`ContractError`, an ``AssertionError``.

>>> import numpy as np, ipvit.testing
>>> data = ipvit.MemoryDataset(np.zeros((4, 3, 8, 8), np.uint8), [0, 1, 0, 1], ["square", "ring"])
>>> ipvit.testing.check_dataset(data)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvit.lazy import lazy_names

if TYPE_CHECKING:
    from ipvit.testing.adapter import check_adapter
    from ipvit.testing.contract import ContractError
    from ipvit.testing.dataset import check_dataset
    from ipvit.testing.experiment import check_experiment
    from ipvit.testing.functions import check_attack, check_corruption, check_fill

_WHERE = {
    "check_experiment": "ipvit.testing.experiment",
    "check_adapter": "ipvit.testing.adapter",
    "check_dataset": "ipvit.testing.dataset",
    "check_attack": "ipvit.testing.functions",
    "check_fill": "ipvit.testing.functions",
    "check_corruption": "ipvit.testing.functions",
    "ContractError": "ipvit.testing.contract",
}

__all__ = [  # noqa: RUF022 - in the order of the page
    "ContractError",
    "check_experiment",
    "check_adapter",
    "check_dataset",
    "check_attack",
    "check_fill",
    "check_corruption",
]

__getattr__, __dir__ = lazy_names(__name__, _WHERE)
