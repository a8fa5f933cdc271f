"""Checks whose answer lies on a GPU, made after everything is queued there: to ask earlier is to wait for it idle."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Generator, Iterable

import torch
from torch import Tensor

Check = Callable[[float], None]
"""Raises where a number is not what it should be."""

_WAITING: contextvars.ContextVar[list[tuple[Tensor, Check]] | None] = contextvars.ContextVar("_WAITING", default=None)


def check(number: Tensor, judge: Check) -> None:
    """Judge a number, at once or, inside :func:`deferred`, at its end.

    Args:
        number: a tensor of one element.
        judge: is given it.
    """
    waiting = _WAITING.get()
    if waiting is None or number.device.type == "cpu":
        judge(float(number))
    else:
        waiting.append((number.detach(), judge))


def forbid(wrong: Tensor, text: str) -> None:
    """Raise ValueError with a text where something is wrong, a tensor of one bool; see :func:`check`."""

    def judge(is_wrong: float) -> None:
        if is_wrong:
            raise ValueError(text)

    check(wrong, judge)


class Deferred:
    """The checks of a piece of work that are not made yet."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Tensor, Check]] = []

    @property
    def numbers(self) -> dict[str, Tensor]:
        """What is to be judged, as one column; none where nothing is."""
        if not self.waiting:
            return {}
        return {"checks": torch.stack([number.reshape(()).to(torch.float32) for number, _ in self.waiting])}

    def judge(self, numbers: Iterable[float]) -> None:
        """Make the checks, in their order.

        Args:
            numbers: the values of :attr:`numbers`.
        """
        for number, (_, judge) in zip(numbers, self.waiting, strict=True):
            judge(number)


@contextlib.contextmanager
def deferred() -> Generator[Deferred]:
    """Put off the checks of what is done in here; whoever asks for this makes them afterwards."""
    found = Deferred()
    token = _WAITING.set(found.waiting)
    try:
        yield found
    finally:
        _WAITING.reset(token)
