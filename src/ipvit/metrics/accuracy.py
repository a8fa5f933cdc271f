"""Is the label among the k best classes of one image?"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


def first_labels(labels: Tensor) -> Tensor:
    """Return one right answer of each image, ``(B,)``: the first, where ``labels`` says several; -1 where none is.

    Args:
        labels: ``(B,)`` integers, or ``(B, C)`` booleans that say which answers are right.
    """
    import torch

    if labels.ndim == 1:
        return labels
    places = torch.arange(labels.shape[1], device=labels.device).expand_as(labels)
    first = torch.where(labels, places, labels.shape[1]).amin(dim=1)
    return torch.where(labels.any(dim=1), first, -1)


def best_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Return of the right answers of each image the one with the largest logit, ``(B,)``; of equal ones the first.

    Args:
        logits: ``(B, C)``.
        labels: as :func:`first_labels` takes them.
    """
    if labels.ndim == 1:
        return labels
    of_right = logits.masked_fill(~labels, float("-inf"))
    return first_labels(labels & (of_right == of_right.amax(dim=1, keepdim=True)))


def topk_correct(logits: Tensor, labels: Tensor, k: int = 1) -> Tensor:
    """Tell for every image whether its label, or one of several, is among the ``k`` classes with the largest logits.

    Ties are broken by the lower class index, so ``k=1`` is ``logits.argmax(1) == labels`` on every device, and the
    answer never depends on the order in which a sort happens to visit equal values.

    Args:
        logits: ``(B, C)`` scores, any floating type. A row with a NaN in it is never correct.
        labels: ``(B,)`` integer classes in [0, C), or -1 for an image without a label, which is never correct; or
            ``(B, C)`` booleans, the classes that are right.
        k: how many classes count; more than ``C`` means all of them.

    Returns:
        ``(B,)`` boolean tensor on the device of ``logits``.

    Raises:
        ValueError: for wrong shapes, ``k < 1`` or a label outside [-1, C).

    Example:
        >>> import torch
        >>> topk_correct(torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1]]), torch.tensor([2, 0]), k=1)
        tensor([False,  True])
        >>> topk_correct(torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1]]), torch.tensor([2, 0]), k=2)
        tensor([True, True])
    """
    if logits.ndim != 2 or labels.shape not in (logits.shape[:1], logits.shape):
        raise ValueError(f"logits must be (B, C) and labels (B,), not {tuple(logits.shape)} and {tuple(labels.shape)}")
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    n_classes = logits.shape[1]
    labels = labels.to(logits.device)
    check_labels(labels, n_classes)
    return (label_rank(logits, labels) < min(k, n_classes)) & ~logits.isnan().any(dim=1)


def check_labels(labels: Tensor | np.ndarray, n_classes: int) -> None:
    """Check that labels are among so many classes; of labels on a GPU, the processor waits until it has the answer.

    Args:
        labels: as :func:`first_labels` takes them.
        n_classes: how many classes there are.

    Raises:
        ValueError: one is none of them.
    """
    if labels.ndim != 1 or not len(labels):
        return
    low, high = int(labels.min()), int(labels.max())
    if not (low >= -1 and high < n_classes):
        raise ValueError(f"labels must lie in [-1, {n_classes}), not in [{low}, {high}]")


def label_rank(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how many classes come before the label of each image, in the order that :func:`topk_correct` explains.

    Nothing here waits for a GPU.

    Args:
        logits: ``(B, C)`` scores, without NaN.
        labels: as :func:`topk_correct` takes them, on the same device, checked by :func:`check_labels`.

    Returns:
        ``(B,)`` int64; ``C`` for an image without label.
    """
    import torch

    labels = best_labels(logits, labels)
    safe = labels.long().clamp_min(0).unsqueeze(1)
    of_label = logits.gather(1, safe)
    lower_index = torch.arange(logits.shape[1], device=logits.device) < safe
    ahead = ((logits > of_label) | ((logits == of_label) & lower_index)).sum(dim=1)
    return torch.where(labels >= 0, ahead, logits.shape[1])
