"""What joining shards and a report take of memory and time, on records of studies of any size that are made up.

    python benchmarks/many_records.py --images 50000 --conditions 46 --models 3
    python benchmarks/many_records.py --images 50000 --conditions 46 --models 3 --source PATH/TO/ANOTHER/CHECKOUT/src

Two shards of a study of occlusion are measured on a few images, then filled up with results of as many images as are
asked for. ``merge``, the report and a second report each run in a process of their own; its peak memory is that of the
process. What is kept of the first report lies in a cache of the benchmark's own.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from ipvit import Model
    from ipvit.engine.store import Store

SHARDS = 2
CLASSES = [f"c{i}" for i in range(10)]
SEEN = 8
"""Images that are really measured."""


def networks(number: int) -> list[Model]:
    """Return networks that answer with the mean colour."""
    import torch  # not above: what is measured does not need it
    from torch import Tensor, nn

    import ipvit

    class Null(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.head = nn.Linear(3, len(CLASSES))

        def forward(self, images: Tensor) -> Tensor:
            return self.head(images.mean(dim=(2, 3)))

    return [ipvit.wrap(Null(i), size=32, crop_pct=1.0, classes=CLASSES, name=f"null{i}") for i in range(number)]


def make(out: Path, images: int, conditions: int, models: int) -> int:
    """Write the shards; return the number of their results."""
    import ipvit
    from ipvit.engine.store import Store

    levels = tuple(round(level / 10, 1) for level in range(10))
    experiment = ipvit.Occlusion(levels=levels, runs=max(1, (conditions - 1) // 9), grid="4x4")
    pixels = np.random.default_rng(0).integers(0, 256, (SEEN, 3, 32, 32), dtype=np.uint8)
    data = ipvit.MemoryDataset(pixels, np.arange(SEEN) % len(CLASSES), CLASSES, ids=[f"real {i}" for i in range(SEEN)])
    measured, total = networks(models), 0
    for number in range(SHARDS):
        ipvit.run(
            experiment,
            models=measured,
            data=data,
            out=out,
            shard=f"{number + 1}/{SHARDS}",
            batch_size=SEEN // SHARDS,
            workers=0,
            progress=False,
        )
        store = Store(out / "shards" / f"{number + 1}-of-{SHARDS}")
        total += fill(store, np.arange(images // SHARDS) + number * (images // SHARDS), number)
    return total


def fill(store: Store, images: np.ndarray, seed: int) -> int:
    """Put results on other images in place of those that were measured; return their number.

    They are in the order in which a run leaves them. Beside the images, only what is drawn differs between rows of a
    condition.
    """
    random, total = np.random.default_rng(seed), 0
    ids = pl.Series("image", [f"n01440764/ILSVRC2012_val_{i:08d}.JPEG" for i in images])
    for weights in store.folders("occlusion"):
        measured = [*(store.root / "records" / "occlusion").glob(f"*-{weights}/part-*.parquet")]
        of_one = store.select("occlusion", {}, of=weights)[0].unique("condition", maintain_order=True)
        rows = of_one[np.repeat(np.arange(of_one.height), len(ids))]
        drawn = {
            "correct": random.random(rows.height) < 0.5,
            "confidence": random.random(rows.height, dtype=np.float32),
        }
        store.write(rows.with_columns(pl.concat([ids] * of_one.height), **{k: pl.Series(v) for k, v in drawn.items()}))
        for path in measured:
            path.unlink()
        total += rows.height
    return total


def joined(out: Path) -> None:
    """Join the shards."""
    from ipvit.engine.merge import merge

    merge([out], out)


def reported(out: Path) -> None:
    """Make all tables, figures and the page."""
    import ipvit

    assert ipvit.Run(out).report().is_file()


WORK = {"merge": joined, "report": reported, "again": reported}


def main() -> None:
    """Print the peak memory and the time of each piece of work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--conditions", type=int, default=46)
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--source", help="the package of another checkout, which is measured on the same records")
    parser.add_argument("--work", choices=["make", *WORK], help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work == "make":
        results = make(arguments.out, arguments.images, arguments.conditions, arguments.models)
        print(f"{results:,} results", flush=True)
        return
    if arguments.work:
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        WORK[arguments.work](arguments.out)
        used = resource.getrusage(resource.RUSAGE_SELF)
        memory = f"{used.ru_maxrss / 1024:9,.0f} MB ({before / 1024:,.0f} before)"
        seconds = f"{used.ru_utime + used.ru_stime:8.1f} s cpu {time.perf_counter() - started:8.1f} s"
        print(f"{arguments.work:8}{memory} {seconds}")
        return
    with tempfile.TemporaryDirectory() as place:
        folder = f"{place}/run"
        sizes = [f"--{name}={getattr(arguments, name)}" for name in ("images", "conditions", "models")]
        # in a process of its own, too: the peak of those that are started would begin with this one's
        subprocess.run([sys.executable, __file__, "--work", "make", "--out", folder, *sizes], check=True)
        places = [("this", None), *([("other", arguments.source)] if arguments.source else [])]
        for name in WORK:
            for whose, source in reversed(places):
                environment = os.environ | {"XDG_CACHE_HOME": f"{place}/cache of {whose}"}
                environment |= {"PYTHONPATH": source} if source else {}
                command = [sys.executable, __file__, "--work", name, "--out", folder]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                print(f"{whose:6}{done.stdout.strip()}", flush=True)
                if name == "merge" and whose == "other":  # the next begins with the shards alone, too
                    Path(folder, "shards").rename(Path(place, "shards"))
                    Path(folder).rename(Path(place, "of-the-other"))
                    Path(folder).mkdir()
                    Path(place, "shards").rename(Path(folder, "shards"))


if __name__ == "__main__":
    main()
