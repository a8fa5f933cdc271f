"""What it takes to open a folder of very many files: seconds of the first and the second start, memory, and a worker's.

    python benchmarks/index.py --files 200000
    python benchmarks/index.py --files 200000 --source PATH/TO/ANOTHER/CHECKOUT/src

Files of 100 bytes are written into class folders of 1,281, as ImageNet's. Each start is a process of its own, with a
cache of its own; numbers are what the data set adds to the process, and those for 1.28 million files are in proportion.
Seconds are what passes and what processors work, in this process and in those that it starts. What passes tells what a
user waits only where nothing else runs: with ``--alone`` a start goes before all else that runs (Linux, root).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMAGENET, IN_A_FOLDER = 1_281_167, 1_281


def write_files(root: Path, files: int) -> None:
    """Write so many files, older than what is kept must be."""
    long_ago = time.time() - 7200
    for number in range(files):
        synset = f"n{number // IN_A_FOLDER:08d}"
        folder = root / synset
        if number % IN_A_FOLDER == 0:
            folder.mkdir(parents=True)
        path = folder / f"{synset}_{number:06d}.JPEG"
        path.write_bytes(f"{number:0100d}".encode())
        os.utime(path, (long_ago, long_ago))


def private_bytes() -> int:
    """Return the memory that is this process's alone, without what it shares with the one that it was copied from."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Dirty", "Private_Clean"))) * 1024


def in_a_worker(ids: object) -> int:
    """Return what a copy of this process adds once it has looked at every id."""
    end, start = os.pipe()
    if not (child := os.fork()):
        before = private_bytes()
        for _ in ids:  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
            pass
        os.write(start, str(private_bytes() - before).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return int(os.read(end, 100))


def opened(root: Path, alone: bool) -> None:
    """Open the folder and print what it took."""
    from ipvit.data import known_files
    from ipvit.data.formats.folder import FolderDataset

    known_files.SETTLED = -3600.0  # the files were written a moment ago
    if alone:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    before, peak = private_bytes(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, cpu = time.perf_counter(), processor_time()
    data = FolderDataset(root)
    seconds, cpu = time.perf_counter() - started, processor_time() - cpu
    most = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024
    held, files = private_bytes() - before, len(data.ids)
    sizes = {"held": held, "at its peak": most, "in a worker": in_a_worker(data.ids)}
    scale = IMAGENET / files
    told = ", ".join(
        f"{size / files:5.0f} B a file {what} ({size * scale / 1e6:.0f} MB)" for what, size in sizes.items()
    )
    times = f"{seconds:6.2f} s ({seconds * scale:.1f} s), {cpu:6.2f} s cpu ({cpu * scale:.1f} s)"
    print(f"{times}, {told}, {data.fingerprint[-8:]}")


def processor_time() -> float:
    """Return the seconds that processors have worked for this process and those that it has started and that ended."""
    return sum(os.times()[:4])


def main() -> None:
    """Print a line for each start."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--source", help="the package of another checkout, which opens the same files")
    parser.add_argument("--alone", action="store_true", help="before all else that runs, for a time that counts")
    parser.add_argument("--images", type=Path, help="a folder of such files, in place of one that is written")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open:
        opened(arguments.open, arguments.alone)
        return
    with tempfile.TemporaryDirectory() as place:
        images = arguments.images or Path(place, "images")
        if not arguments.images:
            write_files(images, arguments.files)
        for whose, source in [*([("other", arguments.source)] if arguments.source else []), ("this", None)]:
            environment = (
                os.environ | {"XDG_CACHE_HOME": f"{place}/{whose}"} | ({"PYTHONPATH": source} if source else {})
            )
            for start in ("first", "second"):
                command = [sys.executable, __file__, "--open", images, *["--alone"] * arguments.alone]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                print(f"{whose:6}{start:7}{done.stdout.strip()}", flush=True)


if __name__ == "__main__":
    main()
