"""Read what flows through a network, and put something else there, without copying its forward pass.

Everything here is a context manager or cleans up after itself: hooks and swapped attributes are gone afterwards, also
when the network raises.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

from torch import Tensor, nn

_ABSENT = object()


@dataclasses.dataclass(frozen=True)
class Tap:
    """A place in a network: what enters or leaves one of its modules."""

    module: nn.Module
    side: Literal["input", "output"] = "input"


@dataclasses.dataclass(frozen=True)
class Flow:
    """What passed a :class:`Tap`: the arguments of the module, or what it returned as the only one."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)


class _EverythingRead(Exception):
    """Raised inside a forward pass once every tap has been passed."""


def read(network: nn.Module, images: Tensor, taps: Sequence[Tap], *, copy: bool = False) -> list[Flow]:
    """Run a network until every tap has been passed, and no further.

    Args:
        network: the network.
        images: its input.
        taps: where to read.
        copy: keep copies, where what works in place further on must not change what was read.

    Returns:
        What passed each tap, in the order of ``taps``.

    Raises:
        RuntimeError: a tap is on a module that the forward pass does not call.
    """
    found: dict[int, Flow] = {}

    def keep(position: int, flow: Flow) -> None:
        found[position] = copied(flow) if copy else flow
        if len(found) == len(taps):
            raise _EverythingRead

    with contextlib.ExitStack() as stack:
        for position, tap in enumerate(taps):
            stack.enter_context(_watched(tap, lambda flow, position=position: keep(position, flow)))
        with contextlib.suppress(_EverythingRead):
            network(images)
    missing = [type(tap.module).__name__ for position, tap in enumerate(taps) if position not in found]
    if missing:
        raise RuntimeError(f"{type(network).__name__} does not call {', '.join(missing)}: nothing to read there")
    return [found[position] for position in range(len(taps))]


@contextlib.contextmanager
def _watched(tap: Tap, seen: Callable[[Flow], None]) -> Iterator[None]:
    if tap.side == "input":
        handle = tap.module.register_forward_pre_hook(
            lambda _module, args, kwargs: seen(Flow(args, dict(kwargs))), with_kwargs=True
        )
    else:
        handle = tap.module.register_forward_hook(lambda _module, _args, output: seen(Flow((output,))))
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def replaced(tap: Tap, replace: Callable[[Flow], Flow]) -> Iterator[None]:
    """Let ``replace`` decide what passes a tap.

    Args:
        tap: where.
        replace: takes what would have passed, returns what passes instead.
    """

    def enter(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        flow = replace(Flow(args, dict(kwargs)))
        return flow.args, flow.kwargs

    if tap.side == "input":
        handle = tap.module.register_forward_pre_hook(enter, with_kwargs=True)
    else:
        handle = tap.module.register_forward_hook(lambda _module, _args, output: replace(Flow((output,))).args[0])
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def skipped(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let modules return their input and compute nothing."""
    with contextlib.ExitStack() as stack:
        for module in modules:
            stack.enter_context(changed(module, "forward", _pass_through))
        yield


@contextlib.contextmanager
def changed(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an instance another attribute (not a module or parameter) for a while."""
    before = vars(owner).get(name, _ABSENT)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is _ABSENT:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def copied(flow: Flow) -> Flow:
    """Return a copy, so that what works in place leaves the original alone."""
    return Flow(tuple(arg.clone() if isinstance(arg, Tensor) else arg for arg in flow.args), flow.kwargs)


def _pass_through(*args: Any, **_: Any) -> Any:
    return args[0] if len(args) == 1 else args
