"""What the process does with memory while a study runs."""

import ctypes
import subprocess
import sys

import pytest
import torch

from ipvit.engine.device import pooled_allocator

glibc = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")

PAGES_GIVEN = """
import contextlib, resource, torch
from ipvit.engine.device import pooled_allocator

def pages_of(tensors):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(tensors):
        torch.zeros(12, 2**20)  # 48 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def held():
    with open("/proc/self/statm") as numbers:
        return int(numbers.read().split()[1])

plain, before = pages_of(8), held()
with pooled_allocator(torch.device("cpu")):
    pages_of(30)  # blocks must lie at multiples of 64: some are taken before one fits into another's place
    kept, during = pages_of(8), held()
print(plain, kept, during - before, held() - before)
"""


@pytest.mark.skipif(not glibc, reason="only glibc's memory is looked after")
def test_the_memory_of_large_tensors_is_taken_from_the_system_once_and_given_back_at_the_end():
    found = subprocess.run([sys.executable, "-c", PAGES_GIVEN], capture_output=True, text=True, check=True).stdout
    plain, kept, held, held_afterwards = map(int, found.split())
    assert kept < plain / 8
    assert held_afterwards < held / 4


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    with pooled_allocator(torch.device("cpu")), pooled_allocator(torch.device("meta")):
        assert torch.zeros(3).sum() == 0
