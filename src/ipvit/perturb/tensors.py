"""What torch offers without types, with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

_torch: Any = torch
_fft: Any = torch.fft

from_numpy: Callable[[NDArray[Any]], Tensor] = _torch.from_numpy
"""The tensor that shares an array's memory; torch does not say of what."""

rfft2: Callable[..., Tensor] = _fft.rfft2
irfft2: Callable[..., Tensor] = _fft.irfft2
