"""What the settings of a run would cost and change, in sentences, as far as that is known without measuring them."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ipvit.core.run_config import RunConfig
from ipvit.core.text.words import counted
from ipvit.engine.types import Task
from ipvit.engine.worker_count import usable_cores
from ipvit.models.backend import COMPUTES

if TYPE_CHECKING:
    from ipvit.engine.costs.estimate import Estimate

_SHORT = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""What Linux calls a processor's instructions for numbers of 16 bits."""


def setting_costs(
    found: Estimate, tasks: Sequence[Task], config: RunConfig, device: torch.device, batch_size: int
) -> list[str]:
    """Return a sentence or two for each setting that decides how fast a run is.

    Args:
        found: what the study costs as it is.
        tasks: all of the study.
        config: the options of the run.
        device: where the networks are.
        batch_size: images at a time.
    """
    return [
        _precision(tasks, config, device),
        _backend(tasks, config, device),
        _compile(tasks, config, device),
        _batch_size(batch_size),
        _workers(found),
    ]


def _anew(tasks: Sequence[Task]) -> str:
    there = sum(int(task.on_disk.sum()) for task in tasks)
    again = f", and the {counted(there, 'result')} that the folder has would be measured again" if there else ""
    return f"its results are kept apart from those of others{again}"


def _precision(tasks: Sequence[Task], config: RunConfig, device: torch.device) -> str:
    if config.precision != "fp32":
        longer = "take longer"
        if config.precision != "tf32" and _has_short_products(device) is False:
            longer = "take no longer, as this device has no instructions for 16 bits"
        return f"precision {config.precision}: fp32 would be the reference and {longer}; {_anew(tasks)}."
    if device.type == "cuda":
        return f"precision fp32: tf32 and bf16 would take less time and change some predictions; {_anew(tasks)}."
    fast = {True: "has", False: "has not", None: "may have"}[_has_short_products(device)]
    return (
        f"precision fp32: bf16 would change some predictions, and take less time only with instructions for it, which "
        f"this device {fast}; {_anew(tasks)}."
    )


def _has_short_products(device: torch.device) -> bool | None:
    """Tell whether a processor has instructions for numbers of 16 bits; None where the system does not say."""
    if device.type != "cpu" or sys.platform != "linux":
        return None
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), None)
    return None if flags is None else not _SHORT.isdisjoint(flags)


def _backend(tasks: Sequence[Task], config: RunConfig, device: torch.device) -> str:
    if config.backend != "torch":
        return f"backend {config.backend}: torch would take longer; {_anew(tasks)}."
    if device.type != "cpu":
        return "backend torch: openvino is for the CPU."
    able = dict.fromkeys(
        task.experiment.name for task in tasks if task.experiment.requirements.of(task.model) <= COMPUTES
    )
    if not able:
        return "backend torch: openvino computes none of these experiments."
    here = "" if importlib.util.find_spec("openvino") else " It is not installed: pip install 'ipvit[openvino]'."
    return (
        f"backend torch: openvino would compute {', '.join(able)}, and convert each network first, in seconds; in fp32 "
        f"its results are torch's up to rounding; {_anew(tasks)}.{here}"
    )


def _compile(tasks: Sequence[Task], config: RunConfig, device: torch.device) -> str:
    inside = dict.fromkeys(
        task.experiment.name for task in tasks if task.experiment.requirements.of(task.model) - {"logits", "gradients"}
    )
    beside = f"; {', '.join(inside)} would gain nothing" if inside else ""
    if config.compile:
        return f"compile: on{beside}; without it the first minutes are not spent on compiling."
    if config.backend != "torch":
        return f"compile: off; {config.backend} compiles by itself."
    where = "" if device.type == "cuda" else ", which on a processor seldom comes back"
    return f"compile: off; it would cost minutes for each network at first{where}{beside}. Last digits may change."


def _batch_size(batch_size: int) -> str:
    return (
        f"batch-size {batch_size}: the memory of a network's pass grows in proportion; records stay the same but for "
        "last digits. Where memory runs out it is halved by itself."
    )


def _workers(found: Estimate) -> str:
    reading = found.decoding + sum(part.reading for part in found.parts)
    networks = sum(part.seconds or 0 for part in found.parts)
    wanted = max(1, math.ceil(reading / networks)) if networks else 1
    cores = len(usable_cores())
    if found.workers >= wanted or (wanted == 1 and not found.workers):
        told = "more would gain nothing"
    else:
        told = f"{wanted} would keep up" + ("" if wanted <= cores else f", and there are {counted(cores, 'core')}")
    return (
        f"workers {found.workers}: to read takes {reading:.1f} s in one process, the networks {networks:.1f} s; {told}."
        " They change no result."
    )
