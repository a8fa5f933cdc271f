"""What every check needs: the error, what counts as equal, and what must be as it was before."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ipvit.errors import InputError, error_line


class ContractError(AssertionError):
    """A plug-in does not keep what ipvit relies on.

    The message is one sentence that says what is wrong, where, and what would be right.
    """


def require(kept: object, sentence: str) -> None:
    """Raise where a promise is not kept.

    Args:
        kept: true where it is.
        sentence: what is wrong, where, and what would be right.

    Raises:
        ContractError: with that sentence.
    """
    if not kept:
        raise ContractError(sentence)


@contextlib.contextmanager
def no_error(doing: str) -> Iterator[None]:
    """Turn what somebody's code raises into a :class:`ContractError`.

    Args:
        doing: what is done to whom, the subject of a sentence: ``reading image 3 of Rings``.

    Raises:
        ContractError: the code inside raised something; the message names it.
    """
    try:
        yield
    except ContractError:
        raise
    except Exception as error:  # anything may come out of somebody's code
        raise ContractError(f"{doing} raises {error_line(error, 300, named=True)}") from error


def require_refusal(call: Callable[[], object], doing: str) -> None:
    """Require that a call which cannot be answered is refused by an :class:`ipvit.InputError`.

    Args:
        call: what is called.
        doing: what is done to whom, the subject of a sentence.

    Raises:
        ContractError: it returns something, or raises something else.
    """
    try:
        call()
    except InputError:
        return
    except Exception as error:
        raise ContractError(
            f"{doing} raises {error_line(error, 300, named=True)}; it must raise an InputError"
        ) from error
    raise ContractError(f"{doing} returns something; it must raise an InputError")


def close(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors of one shape are equal up to the rounding of float32 arithmetic."""
    if one.shape != other.shape:
        return False
    one, other = one.detach().float(), other.detach().float()
    size = other[other.isfinite()].abs().max().item() if other.isfinite().any() else 0.0
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5 * max(1.0, size), equal_nan=True)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Start the global random generators of Python, NumPy and torch from a seed; they are as before afterwards."""
    before = _random_states()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before["random"])
        np.random.set_state(before["numpy.random"])
        torch.random.set_rng_state(before["torch"])


@contextlib.contextmanager
def randomness_untouched(doing: str) -> Iterator[None]:
    """Require that what runs inside draws nothing from the global random generators.

    Args:
        doing: what is done to whom, the subject of a sentence.

    Raises:
        ContractError: it names the generator whose state has changed.
    """
    before = _random_states()
    yield
    after = _random_states()
    for name, state in before.items():
        require(
            _same_state(state, after[name]),
            f"{doing} changes the global random state of {name}; what is random must come from keys alone",
        )


def _random_states() -> dict[str, Any]:
    return {
        "random": random.getstate(),
        "numpy.random": np.random.get_state(legacy=True),
        "torch": torch.random.get_rng_state(),
        "torch.cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def _same_state(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return len(one) == len(other) and all(map(np.array_equal, one, other))


class NetworkState:
    """How a network was found: modes, hooks, replaced methods, weights and their gradients.

    Args:
        network: any module.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._modules = _traces(network)
        self._weights = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        self._trained = {name: weight.requires_grad for name, weight in network.named_parameters()}
        self._gradients = {name for name, weight in network.named_parameters() if weight.grad is not None}

    def require_unchanged(self, doing: str) -> None:
        """Require that the network is as it was found.

        Args:
            doing: what was done to it, the subject of a sentence.

        Raises:
            ContractError: it names the module or weight that has changed.
        """
        after = _traces(self._network)
        where = next((name for name in {**self._modules, **after} if self._modules.get(name) != after.get(name)), None)
        if where is not None:
            what = _what_changed(self._modules.get(where, {}), after.get(where, {}))
            raise ContractError(f"{doing} leaves {what} on {where or 'the network'}; it must be as it was found")
        for name, tensor in self._network.state_dict().items():
            require(
                name in self._weights and torch.equal(self._weights[name], tensor),
                f"{doing} changes the weight {name}; the network must be as it was found",
            )
        for name, weight in self._network.named_parameters():
            require(
                weight.requires_grad == self._trained[name],
                f"{doing} changes requires_grad of the weight {name}; the network must be as it was found",
            )
            require(
                weight.grad is None or name in self._gradients,
                f"{doing} leaves a gradient on the weight {name}; take gradients by torch.autograd.grad",
            )


def _traces(network: nn.Module) -> dict[str, dict[str, Any]]:
    """Return, for every module, what must be the same before and after."""
    return {
        name: {
            "another module": id(module),
            "another mode (training or evaluation)": module.training,
            "a forward hook": len(module._forward_hooks),  # noqa: SLF001 - there is no other way to count them
            "a forward pre-hook": len(module._forward_pre_hooks),  # noqa: SLF001
            "a backward hook": len(module._backward_hooks) + len(module._backward_pre_hooks),  # noqa: SLF001
            "a replaced forward method": "forward" in vars(module),
            "another fused_attn": vars(module).get("fused_attn"),
        }
        for name, module in network.named_modules()
    }


def _what_changed(before: dict[str, Any], after: dict[str, Any]) -> str:
    return next((what for what in {**before, **after} if before.get(what) != after.get(what)), "a change")
