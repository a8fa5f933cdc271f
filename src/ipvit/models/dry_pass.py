"""One pass over two made-up pictures, when a network is bound: does what comes back fit the names of its outputs?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ipvit.errors import InputError, error_line
from ipvit.models.adapters.base import logits_of

if TYPE_CHECKING:
    from ipvit.models.model import Model

PICTURES = 2
"""As few as show whether each picture has an answer of its own."""


def outputs_of(model: Model) -> int:
    """Return how many outputs a network has, from one pass over two pictures of noise.

    Raises:
        InputError: it does not take such pictures, or does not answer with exactly one finite floating-point tensor
            ``(B, outputs)`` as wide as there are names; says what came back.
    """
    _check_weights(model)
    headless = "logits" not in model.adapter.capabilities
    with as_in_a_run(model):
        pictures = probe_pictures(model)
        try:
            output: Any = model.backbone(model.normalize(pictures))
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 - anything may come out of somebody's network
            raise InputError(f"{model.name} {_cannot_take(model, error)}") from None
    if headless:
        return 0
    try:
        logits = logits_of(output)
    except InputError:
        raise InputError(
            f"{model.name} returned {came_back(output)}; it must return one tensor of logits (B, classes), or a "
            "mapping with 'logits': wrap a module that does"
        ) from None
    _check_logits(model, logits)
    return logits.shape[1]


def came_back(output: Any) -> str:
    """Say in a few words what a network returned.

    >>> came_back((torch.zeros(2, 5), torch.zeros(2, 3, 4)))
    'a tuple of (2, 5) and (2, 3, 4)'
    """
    if isinstance(output, Tensor):
        return f"a tensor {tuple(output.shape)} of {str(output.dtype).removeprefix('torch.')}"
    if isinstance(output, Mapping):
        parts = [
            f"{key} {tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__}"
            for key, value in list(output.items())[:4]
        ]
        return f"a mapping of {', '.join(parts) or 'nothing'}"
    if isinstance(output, tuple | list):
        parts = [str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__ for value in output[:4]]
        return f"a {type(output).__name__} of {' and '.join(parts) or 'nothing'}"
    return f"an object of type {type(output).__name__}"


def probe_pictures(model: Model) -> Tensor:
    """Return two pictures of noise in [0, 1], always the same, of the model's input size and on its device."""
    return noise(model.image_size).to(model.device)


def noise(size: tuple[int, int]) -> Tensor:
    """Return the pictures that networks of an input size are tried on, ``(PICTURES, 3, *size)`` in [0, 1]."""
    return torch.rand(PICTURES, 3, *size, generator=torch.Generator().manual_seed(0))


@contextlib.contextmanager
def as_in_a_run(model: Model) -> Iterator[None]:
    """Inside, a network is in evaluation mode and computes in its own precision; afterwards all is as it was.

    The global random state is left alone, too.
    """
    trained = [module for module in model.modules() if module.training]
    devices = [model.device] if model.device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=devices),
        torch.inference_mode(mode=False),
        torch.no_grad(),
        torch.autocast(model.device.type, enabled=False),
    ):
        model.eval()
        try:
            yield
        finally:
            for module in trained:
                module.training = True


def _check_weights(model: Model) -> None:
    """Refuse weights that are not float32, and those that are nowhere."""
    for key, value in (*model.backbone.named_parameters(), *model.backbone.named_buffers()):
        if nn.parameter.is_lazy(value):
            continue
        if value.device.type == "meta":
            raise InputError(f"{model.name}: the weight {key} is on the device 'meta', that is, it has no values")
        if value.is_floating_point() and value.dtype != torch.float32:
            kind = str(value.dtype).removeprefix("torch.")
            raise InputError(
                f"{model.name}: the weight {key} is of {kind}; give module.float(), the precision of a run says how it "
                "is computed (fp32, bf16, fp16)"
            )


def _cannot_take(model: Model, error: Exception) -> str:
    height, width = model.image_size
    said = error_line(error, named=True)
    first = next((module for module in model.backbone.modules() if isinstance(module, nn.Conv2d)), None)
    if first is not None and first.in_channels != 3 and "channels" in said:
        return (
            f"takes {first.in_channels} channels, and pictures here have 3: wrap a module that makes its input of them"
        )
    return f"cannot take pictures (B, 3, {height}, {width}): {said}"


def _check_logits(model: Model, logits: Tensor) -> None:
    found, right = came_back(logits), "it must return logits (B, classes)"
    if logits.ndim != 2 or logits.shape[0] != PICTURES or logits.shape[1] == 0:
        raise InputError(f"{model.name} returned {found} for {PICTURES} pictures; {right}")
    if not logits.is_floating_point():
        raise InputError(f"{model.name} returned {found}; {right} in floating point, not their decision")
    if not logits.isfinite().all():
        raise InputError(f"{model.name} returned values that are not finite for pictures of noise; {right}")
    if _are_probabilities(logits):
        raise InputError(
            f"{model.name} returned probabilities, which sum to 1 for each picture; {right}, as they are before softmax"
        )
    names = model.classes
    if names is not None and len(names) != logits.shape[1]:
        raise InputError(
            f"{model.name} has {logits.shape[1]} outputs and {len(names)} names of classes ({', '.join(names[:3])}"
            f"{', ...' if len(names) > 3 else ''}); there must be one name for each output, in their order"
        )


def _are_probabilities(outputs: Tensor) -> bool:
    """Tell whether a network has taken the softmax itself: taken again, all answers would be nearly as probable."""
    inside = bool(((outputs > 0) & (outputs < 1)).all())  # not one-hot answers of a made-up network
    varied = bool((outputs.amax(dim=1) > outputs.amin(dim=1)).all())
    sums = outputs.double().sum(dim=1)
    return inside and varied and bool(torch.allclose(sums, torch.ones_like(sums), rtol=0, atol=1e-4))
