"""What computes the networks, and how precisely: the choices, and what goes together."""

from __future__ import annotations

import importlib.util

from ipvit.errors import InputError

COMPUTES = frozenset({"logits", "attention"})
"""Capabilities of a model that a backend offers too; everything else is read inside the network by torch."""

HINTS = {"fp32": "f32", "bf16": "bf16"}
"""The precisions that OpenVINO computes in, and its names of them."""


def check_backend(backend: str, precision: str, device: str, *, compiled: bool = False) -> None:
    """Check that a backend can be used here.

    Args:
        backend: ``torch`` or ``openvino``.
        precision: ``fp32``, ``tf32``, ``bf16`` or ``fp16``.
        device: kind of device, for example ``cpu``.
        compiled: whether the networks are to go through ``torch.compile``.

    Raises:
        InputError: it is not installed, or cannot do what is asked of it.
    """
    if precision == "tf32" and device != "cuda":
        raise InputError(f"tf32 is how GPUs of NVIDIA multiply, and the device is {device!r}; use fp32 or bf16 there")
    if backend == "torch":
        return
    if precision not in HINTS:
        raise InputError(f"the backend {backend} computes in {' or '.join(HINTS)}, not {precision}")
    if device != "cpu":
        raise InputError(f"the backend {backend} is for the cpu, not for the device {device!r}; leave it out there")
    if compiled:
        raise InputError(f"the backend {backend} compiles by itself: leave out either backend or compile")
    if importlib.util.find_spec(backend) is None:
        raise InputError("the backend openvino needs the package openvino: pip install 'ipvit[openvino]'")
