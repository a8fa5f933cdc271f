"""What the benchmarks share: options, files read as the paper's script reads them, times, and what the hardware can."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torch.utils.flop_counter import FlopCounterMode

import ipvit
from ipvit.api import bind_context
from ipvit.core.run_config import Backend, Precision, RunConfig
from ipvit.data.decode import apply_view
from ipvit.data.subset import subset_indices
from ipvit.engine.device import models_on_device, numerics, pooled_allocator
from ipvit.models.openvino_model import with_backend


def options(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="class folders named by ImageNet synsets")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--backend", default="torch", help="what ipvit computes with: torch or openvino")
    parser.add_argument("--precision", default="fp32", help="likewise: fp32 or bf16")
    return parser


@contextlib.contextmanager
def working_folder(arguments: argparse.Namespace) -> Iterator[Path]:
    """Give a folder for the runs and, where there are no ``--data``, made-up photos."""
    with tempfile.TemporaryDirectory() as folder:
        arguments.data = arguments.data or str(made_up_photos(Path(folder) / "photos", arguments.images))
        yield Path(folder)


def made_up_photos(root: Path, n: int) -> Path:
    """Write ``n`` JPEG files of 500 x 375 pixels into one class folder."""
    rng = np.random.default_rng(0)
    folder = root / "n01440764"
    folder.mkdir(parents=True)
    for i in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{i:04d}.jpg", quality=90)
    return root


class Files(TorchDataset):
    """What torchvision's ImageFolder with Resize, CenterCrop and ToTensor does, on the images that ipvit would use."""

    def __init__(self, model: ipvit.Model, arguments: argparse.Namespace) -> None:
        self.data = ipvit.load_dataset(arguments.data)
        self.chosen = subset_indices(self.data, arguments.images)
        self.view = model.preprocessing.view
        self.batch, self.workers = arguments.batch, arguments.workers

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        index = int(self.chosen[number])
        return apply_view(self.data.read(index), self.view, "pil").float() / 255, int(self.data.labels[index])

    def fresh_pass(self) -> DataLoader:
        """Return a loader that reads every file again, in random order."""
        return DataLoader(self, self.batch, shuffle=True, num_workers=self.workers)


@dataclasses.dataclass
class Taken:
    """Seconds on the clock, and seconds of processor time of this process and of those it started and awaited.

    On a machine with other work the second is the more reliable one.
    """

    wall: float = 0.0
    cpu: float = 0.0

    def __mul__(self, times: float) -> Taken:
        return Taken(self.wall * times, self.cpu * times)

    def __str__(self) -> str:
        return f"{self.wall:9.1f} {self.cpu:8.1f}"


@contextlib.contextmanager
def clock() -> Iterator[Taken]:
    """Measure what happens inside; the numbers are there afterwards."""
    taken = Taken()
    wall, cpu = time.perf_counter(), sum(os.times()[:4])
    yield taken
    taken.wall, taken.cpu = time.perf_counter() - wall, sum(os.times()[:4]) - cpu


@contextlib.contextmanager
def as_in_a_run(model: ipvit.Model, backend: Backend, precision: Precision) -> Iterator[ipvit.Model]:
    """Give a model as a run with these settings has it; a backend converts it when it is first called."""
    device = torch.device("cpu")
    with contextlib.ExitStack() as stack:
        stack.enter_context(models_on_device([model], device, RunConfig(backend=backend, precision=precision)))
        stack.enter_context(numerics(device, precision))
        stack.enter_context(torch.inference_mode())
        yield with_backend(model, backend, precision)


def passes_alone(function: Callable[[Tensor], object], images: Tensor, batch: int, times: int) -> Taken:
    """Return the time of a function on images in memory, so many times over: two are measured."""
    parts = images.split(batch)
    function(parts[0])
    with clock() as taken:
        for _ in range(min(times, 2)):
            for part in parts:
                function(part)
    return taken * max(1.0, times / 2)


HEADER = f"{'':34}{'baseline s':>18}  {'ipvit s':>16}   {'ratio':>12}\n{'':34}{'wall':>9} {'cpu':>8}" + (
    f"  {'wall':>7} {'cpu':>8}   {'wall':>6}{'cpu':>6}"
)


def row(name: str, baseline: Taken, ours: Taken) -> str:
    """Return a line of the table below :data:`HEADER`."""
    ratios = f"{baseline.wall / ours.wall:6.2f}{baseline.cpu / ours.cpu:6.2f}"
    return f"{name[:33]:34}{baseline} {ours}   {ratios}"


def timed_run(
    experiment: ipvit.Experiment, model: ipvit.Model, arguments: argparse.Namespace, out: Path, **settings: Any
) -> tuple[Taken, ipvit.Run]:
    """Return what ``ipvit.run`` takes; networks are loaded and modules imported before the clock starts."""
    data, run = ipvit.load_dataset(arguments.data), ipvit.run
    bound = experiment.bind([model], data, bind_context())
    _ = model.digest, bound.conditions(model)
    with clock() as taken:
        done = run(
            experiment,
            models=model,
            data=data,
            out=out,
            limit=arguments.images,
            batch_size=arguments.batch,
            workers=arguments.workers,
            device="cpu",
            progress=False,
            **settings,
        )
    return taken, done


def settings_of(arguments: argparse.Namespace) -> dict[str, str]:
    """Return backend and precision as they were given."""
    return {"backend": arguments.backend, "precision": arguments.precision}


def operations(model: ipvit.Model) -> int:
    """Return the floating-point operations of one image's forward pass: two for each multiplication with addition."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, *model.image_size))
    return counter.get_total_flops()


def matrix_rate(precision: str = "fp32", backend: str = "torch") -> float:
    """Return the operations a second of a large matrix product with this backend, the best of several.

    torch on a processor has a library for products and another one for convolutions: a convolution is measured too.
    """
    n, k = 4096, 1024
    left, right = torch.randn(n, k), torch.randn(k, k)
    if backend == "openvino":
        return _best_rate(_openvino_product(left, right, precision), n * k * k)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    left, right = left.to(dtype), right.to(dtype)
    images = torch.randn(16, 256, 14, 14, dtype=dtype).to(memory_format=torch.channels_last)
    kernel = torch.randn(256, 256, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
    return max(
        _best_rate(lambda: torch.nn.functional.linear(left, right), n * k * k),
        _best_rate(lambda: torch.nn.functional.conv2d(images, kernel, padding=1), images.numel() * kernel[0].numel()),
    )


def _best_rate(function: Callable[[], object], multiplications: int) -> float:
    seconds = []
    with torch.inference_mode(), pooled_allocator(torch.device("cpu")):
        function()
        for _ in range(10):
            started = time.process_time()
            function()
            seconds.append(time.process_time() - started)
    return 2 * multiplications / min(seconds)


def floor(model: ipvit.Model, passes: int, precision: str = "fp32", backend: str = "torch") -> str:
    """Say how long so many images would take if a network were nothing but large matrix products."""
    work, rate = operations(model), matrix_rate(precision, backend)
    return (
        f"floor for {precision} by {backend}: {passes} passes x {work / 1e9:.2f} GFLOP at {rate / 1e9:.0f} GFLOP/s of "
        f"processor time = {passes * work / rate:.1f} s cpu"
    )


def _openvino_product(left: torch.Tensor, right: torch.Tensor, precision: str) -> Callable[[], object]:
    import openvino  # pyright: ignore[reportMissingImports] - an extra that need not be installed
    from openvino import opset13  # pyright: ignore[reportMissingImports]

    rows = opset13.parameter(list(left.shape), openvino.Type.f32)
    product = opset13.matmul(rows, opset13.constant(right.numpy()), False, True)
    hint = {"INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision]}
    hint |= {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
    request = openvino.Core().compile_model(openvino.Model([product], [rows], "product"), "CPU", hint)
    request = request.create_infer_request()
    return lambda: request.infer([left.numpy()], share_inputs=True, share_outputs=True)
