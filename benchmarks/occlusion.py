"""Random PatchDrop: the procedure of the authors' script against ipvit's, in one run on the same files and weights.

    python benchmarks/occlusion.py --data PATH/TO/CLASS/FOLDERS --images 48 --runs 2
    python benchmarks/occlusion.py --data PATH/TO/CLASS/FOLDERS --images 48 --runs 2 --fastest
    python benchmarks/occlusion.py --data PATH/TO/CLASS/FOLDERS --images 48 --runs 2 --memory

The baseline makes a fresh pass over the files for every level and run, in fp32 eager mode, with one mask for the whole
batch, as the script released with the paper does. ``pure forward`` is nothing but the network, with the same settings,
on images that are already in memory, as often as ipvit calls it; two passes over them are measured. ``--fastest`` adds
the other settings, with the share of ipvit's own fp32 predictions that they change. ``--same-memory`` adds a line for
the authors' procedure with ipvit's setting of the memory: what is freed is kept. ``--memory`` prints the peak memory
of runs with more images and conditions instead. Without ``--data`` random JPEG files of ImageNet's usual size are made.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

import polars as pl
import torch
from common import (
    HEADER,
    Files,
    Taken,
    as_in_a_run,
    clock,
    floor,
    options,
    passes_alone,
    row,
    settings_of,
    timed_run,
    working_folder,
)

import ipvit
from ipvit.core.files import path_component
from ipvit.core.run_config import Backend, Precision
from ipvit.engine.device import pooled_allocator
from ipvit.perturb import n_dropped

LEVELS = tuple(k / 10 for k in range(10))

FASTEST: tuple[tuple[Backend, Precision], ...] = (("torch", "bf16"), ("openvino", "fp32"), ("openvino", "bf16"))


def authors_procedure(model: ipvit.Model, files: Files, runs: int) -> Taken:
    """Return the time of the authors' procedure."""
    with clock() as taken:
        for level in LEVELS:
            for _ in range(runs):
                for images, _labels in files.fresh_pass():
                    keep = torch.ones(196)
                    keep[torch.randperm(196)[: n_dropped(level, 196)]] = 0
                    mask = keep.view(1, 1, 14, 14).repeat_interleave(16, 2).repeat_interleave(16, 3)
                    with torch.no_grad():
                        model(images * mask).argmax(1)
    return taken


def pure_forward(model: ipvit.Model, files: Files, calls: int, backend: Backend, precision: Precision) -> Taken:
    """Return the time of the network alone, ``calls`` times over the images."""
    images = torch.stack([files[i][0] for i in range(len(files))])
    with as_in_a_run(model, backend, precision) as computed:
        return passes_alone(computed, images, files.batch, calls)


def measure(name: str, arguments: argparse.Namespace, folder: Path) -> None:
    """Measure one network and print its lines."""
    model = ipvit.load_model(name, pretrained=False)
    files = Files(model, arguments)
    calls = 1 + 9 * arguments.runs
    experiment = ipvit.Occlusion(levels=LEVELS, runs=arguments.runs)
    out = folder / path_component(name)

    def alone(ours: Taken, backend: Backend, precision: Precision) -> str:
        pure = pure_forward(model, files, calls, backend, precision)
        return (
            f"  pure forward {pure.wall:.1f} s wall, {pure.cpu:.1f} s cpu: {baseline.cpu / pure.cpu:.2f} would be its "
            f"ratio; ipvit takes {ours.cpu - pure.cpu:+.1f} s cpu ({ours.cpu / pure.cpu - 1:+.1%})\n"
            f"  {floor(model, calls * len(files), precision, backend)}"
        )

    ours, plain = timed_run(experiment, model, arguments, out, **settings_of(arguments))
    baseline = authors_procedure(model, files, arguments.runs)
    print(row(name, baseline, ours))
    if arguments.same_memory:
        with pooled_allocator(torch.device("cpu")):
            kept = authors_procedure(model, files, arguments.runs)
        print(row("  authors' procedure, memory kept", baseline, kept))
    print(alone(ours, arguments.backend, arguments.precision), flush=True)
    for backend, precision in FASTEST if arguments.fastest else ():
        if backend == "openvino" and importlib.util.find_spec(backend) is None:
            print("  openvino: needs pip install 'ipvit[openvino]'")
            continue
        faster, run = timed_run(experiment, model, arguments, out, backend=backend, precision=precision)
        print(row(f"  {precision} {backend}", baseline, faster), f"  {share_changed(plain, run):.2%} changed")
        print(alone(faster, backend, precision), flush=True)


def share_changed(plain: ipvit.Run, other: ipvit.Run) -> float:
    """Return the share of predictions that are not the same."""
    key = ["image", "condition"]
    both = plain.records("occlusion").join(other.records("occlusion"), on=key)
    return both.select((pl.col("prediction") != pl.col("prediction_right")).mean()).item()


def memory(name: str, arguments: argparse.Namespace) -> None:
    """Print the peak memory of processes that measure more and more."""
    for images, runs in ((1, 1), (2, 1), (1, 2)):
        code = (
            "import resource, ipvit, tempfile, sys\n"
            f"ipvit.run(ipvit.Occlusion(runs={runs * arguments.runs}), data={arguments.data!r}, device='cpu', "
            f"models=ipvit.load_model({name!r}, pretrained=False), out=tempfile.mkdtemp(), progress=False, "
            f"limit={images * arguments.images}, batch_size={arguments.batch}, workers={arguments.workers}, "
            f"backend={arguments.backend!r}, precision={arguments.precision!r})\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        peak = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        print(
            f"{name:34}{images * arguments.images:5} images, {1 + 9 * runs * arguments.runs:3} conditions: "
            f"peak {int(peak.split()[-1]) / 1024:.0f} MB"
        )


def main() -> None:
    """Measure every network and print a table."""
    parser = options(__doc__)
    parser.add_argument("--model", action="append", help="default: deit_tiny_patch16_224 and torchvision:resnet50")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--fastest", action="store_true")
    parser.add_argument("--same-memory", action="store_true")
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    names = arguments.model or ["deit_tiny_patch16_224", "torchvision:resnet50"]
    print(
        f"{arguments.images} images, 10 levels x {arguments.runs} runs, batch {arguments.batch}, "
        f"{torch.get_num_threads()} threads"
    )
    with working_folder(arguments) as folder:
        if not arguments.memory:
            print(HEADER)
        for name in names:
            memory(name, arguments) if arguments.memory else measure(name, arguments, folder)


if __name__ == "__main__":
    main()
