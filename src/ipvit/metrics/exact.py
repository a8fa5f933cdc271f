"""Double precision, also where the device has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def double(values: Tensor) -> Tensor:
    """Return values as float64: on their device, or on the CPU where that is Apple's GPU, which has no float64."""
    return (values.cpu() if values.device.type == "mps" else values).double()
