"""The random corruptions as tensors, with random numbers of their own: another protocol, for GPUs.

:func:`ipvit.perturb.corruptions.corrupt` draws from numpy's frozen stream, one number after the other, as the code of
Hendrycks and Dietterich (2019) does, so only a processor can make its pictures. Here the numbers are words of
SplitMix64, counted from a key: the same corruptions with the same parameters, other noise. There are only integers,
products and sums of float64 that are rounded one by one, and tables that a processor made, so every device gives the
same bytes.
"""

from __future__ import annotations

from ipvit.perturb.corruptions.keyed.by_name import keyed_tensors

__all__ = ["keyed_tensors"]
