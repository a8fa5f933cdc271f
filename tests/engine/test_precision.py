"""What 16 bits cost beside the network: casts of its weights."""

import math
from collections import Counter

import polars as pl
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import ipvit
from helpers.small_runs import photos, small_occlusion
from helpers.tiny import tiny_model
from ipvit.engine.device import numerics, without_gradients
from ipvit.errors import InputError


class Casts(TorchDispatchMode):
    """Counts the tensors of each shape that are cast."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: Counter[tuple[int, ...]] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._to_copy.default:
            self.shapes[tuple(args[0].shape)] += 1
        return func(*args, **(kwargs or {}))


def test_a_weight_is_cast_once_for_all_passes_of_a_batch_and_changes_nothing():
    model, cpu = tiny_model().requires_grad_(False), torch.device("cpu")
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with numerics(cpu, "bf16"), torch.inference_mode():
        plain = model(images)
    with numerics(cpu, "bf16"), without_gradients(model, "bf16"), Casts() as casts:
        cached = [model(images) for _ in range(5)]
    assert casts.shapes[4, 48] == 1  # of the head
    assert all(torch.equal(one, plain) for one in cached)
    assert not any(weight.requires_grad for weight in model.parameters())
    assert not any(one.requires_grad for one in cached)


def test_weights_that_ask_for_gradients_still_do_afterwards():
    model = tiny_model().requires_grad_(True)
    with without_gradients(model, "bf16"):
        pass
    assert all(weight.requires_grad for weight in model.parameters())


def test_tf32_is_allowed_when_it_is_asked_for_and_not_in_fp32():
    for precision, allowed in (("fp32", False), ("tf32", True)):
        with numerics(torch.device("cpu"), precision), without_gradients(tiny_model(), precision):
            assert torch.backends.cuda.matmul.allow_tf32 is allowed and torch.backends.cudnn.allow_tf32 is allowed
            assert torch.is_inference_mode_enabled()


def test_tf32_is_refused_where_no_gpu_of_nvidia_computes(tmp_path):
    with pytest.raises(InputError, match="tf32 is how GPUs of NVIDIA multiply, and the device is 'cpu'; use fp32"):
        ipvit.run(
            small_occlusion(),
            models=[tiny_model()],
            data=photos(4),
            out=tmp_path / "run",
            device="cpu",
            precision="tf32",
            workers=0,
            progress=False,
        )
    assert not (tmp_path / "run").exists()


def test_records_of_two_precisions_differ_by_no_more_than_the_rounding_of_16_bits_allows(tmp_path):
    """The bound is that of a sum of products, |error| <= 4 u sum |w| |x| with the unit roundoff u of bfloat16."""
    model, columns = tiny_model(), ["image", "condition", "dropped", "prediction", "confidence", "label_logit"]
    plain, short = (
        ipvit.run(
            small_occlusion(),
            models=model,
            data=photos(),
            out=tmp_path / precision,
            precision=precision,
            workers=0,
            progress=False,
        )
        .records()
        .select(columns)
        for precision in ("fp32", "bf16")
    )
    both = plain.join(short, on=columns[:3])  # what was dropped is the same
    assert both.height == plain.height == short.height == 210
    mean, std = (torch.tensor(numbers) for numbers in (model.preprocessing.mean, model.preprocessing.std))
    largest = float(torch.maximum(mean / std, (1 - mean) / std).max())
    head = model.backbone.head
    sums = head.weight.detach().abs().sum(dim=1) * largest + head.bias.detach().abs()
    bound = 4 * torch.finfo(torch.bfloat16).eps / 2 * float(sums.max())
    logits = (both["label_logit"] - both["label_logit_right"]).abs().max()
    confidence = (both["confidence"] - both["confidence_right"]).abs().max()
    assert 0 < logits <= bound < 0.2
    assert 0 < confidence <= bound / 2  # a softmax changes by at most half of what its logits do
    sure = both.filter(pl.col("confidence") > 1 / (1 + math.exp(-2 * bound)))  # no other class can come first
    assert sure.height > 20 and sure["prediction"].equals(sure["prediction_right"], check_names=False)
