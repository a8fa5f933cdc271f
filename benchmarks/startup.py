"""Processor time until the command line has answered: help, listings, and what it says to a mistyped word.

    python benchmarks/startup.py                # every command once to fill caches, then the median of three
    python benchmarks/startup.py --repeats 5

User and system time of the child process, so that other work on the machine hardly counts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

from ipvit.cli import COMMANDS, EXPERIMENTS

LISTINGS = (
    ("experiments",),
    ("datasets",),
    ("models",),
    ("models", "deit*"),
    ("models", "--paper"),
    ("train", "--list"),
    ("reproduce", "--list"),
)
MISTAKES = (("oclusion",), ("run", "--strickt"), ("occlusion", "--modles", "resnet50"), ("models", "--papr"))


def commands() -> list[tuple[str, ...]]:
    """Return the arguments of every call that is measured."""
    helps = [("--help",), *((name, "--help") for name in (*COMMANDS, *EXPERIMENTS))]
    return [("--version",), *helps, *LISTINGS, *MISTAKES]


def seconds(arguments: tuple[str, ...]) -> float:
    """Return the processor time of one call, in seconds."""
    before = os.times()
    subprocess.run(
        [sys.executable, "-m", "ipvit", *arguments],
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def main() -> None:
    """Measure and print a table, and the slowest call."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    print("| call | processor time (s) |\n| --- | --- |")
    found = {}
    for arguments in commands():
        seconds(arguments)  # compiles modules, and fills the list of models
        found[arguments] = statistics.median(seconds(arguments) for _ in range(repeats))
        print(f"| ipvit {' '.join(arguments)} | {found[arguments]:.2f} |", flush=True)
    slowest = max(found, key=found.__getitem__)
    print(f"slowest of {len(found)}: ipvit {' '.join(slowest)}, {found[slowest]:.2f} s")


if __name__ == "__main__":
    main()
