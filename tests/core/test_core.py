"""The small helpers that everything stands on."""

from __future__ import annotations

import hashlib
import io
import json
import re
import time

import numpy as np
import pytest
import torch

from ipvit.core.digests import digest_of, digest_of_file, digest_of_json
from ipvit.core.memory import Fitting, halving, is_out_of_memory
from ipvit.core.versions import installed_version
from ipvit.errors import error_line
from ipvit.perturb.pixels import as_bytes, as_floats


def test_digests_are_those_of_sha256(tmp_path):
    data = b"x" * 3_000_000
    (tmp_path / "file").write_bytes(data)
    whole = hashlib.sha256(data).hexdigest()
    assert digest_of(data) == whole == digest_of_file(tmp_path / "file") and digest_of(data, 8) == whole[:8]
    value = {"b": [1, 2.5, None], "a": "é"}
    assert digest_of_json(value, 12) == hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def test_the_version_of_a_package_that_is_not_installed_is_none():
    assert installed_version("torch") and installed_version("no-such-package") is None


@pytest.mark.parametrize(
    ("error", "line", "named"),
    [
        (ValueError("a\n  b\t c"), "a b c", "ValueError: a b c"),
        (AssertionError(), "AssertionError", "AssertionError"),
        (ValueError("\x1b[31mred"), "\\x1b[31mred", "ValueError: \\x1b[31mred"),
    ],
)
def test_an_error_is_told_on_one_line(error, line, named):
    assert error_line(error) == line and error_line(error, named=True) == named


def test_a_long_error_is_cut_and_says_so():
    assert error_line(ValueError("x" * 500), 20) == "x" * 17 + "..."
    assert error_line(ValueError("x" * 20), 20) == "x" * 20


def test_a_batch_that_does_not_fit_is_halved_until_it_does():
    seen = []

    def compute(batch: list[int]) -> list[int]:
        seen.append(len(batch))
        if len(batch) > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return [2 * value for value in batch]

    def halves(batch: list[int]) -> tuple[list[int], list[int]]:
        return batch[: len(batch) // 2], batch[len(batch) // 2 :]

    fitting = Fitting()
    for _ in range(2):
        found = halving(compute, list(range(10)), halves, lambda a, b: a + b, fitting)
        assert found == [2 * value for value in range(10)]
    assert seen == [10, 5, 2, 3, 2, 3] + [2, 3, 2, 3]  # what did not fit once is not tried again
    assert (fitting.most, fitting.too_large) == (3, 10)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("too much"), MemoryError(), ValueError("out of memory")])
def test_a_single_image_that_does_not_fit_and_other_errors_are_passed_on(error):
    calls = []

    def compute(batch: list[int]) -> None:
        calls.append(len(batch))
        raise error

    with pytest.raises(type(error)):
        halving(compute, [1, 2], lambda batch: (batch[:1], batch[1:]), lambda a, b: None)
    assert calls == ([2, 1] if is_out_of_memory(error) else [2])


def test_every_byte_comes_back_and_what_is_given_stays_as_it_is():
    levels = torch.arange(256, dtype=torch.uint8)
    floats = as_floats(levels)
    assert torch.equal(floats, torch.from_numpy(np.arange(256, dtype=np.float32) / np.float32(255)))
    assert torch.equal(as_bytes(floats), levels) and torch.equal(levels, torch.arange(256, dtype=torch.uint8))
    assert as_floats(levels, "cpu").device.type == "cpu"
    given = torch.tensor([255.0])
    assert as_floats(given).item() == 1 and given.item() == 255


def test_a_bar_names_what_goes_on_how_fast_how_long_and_where_on_one_line_of_80_columns(monkeypatch):
    from ipvit.core import terminal

    stream = io.StringIO()
    real = terminal.Terminal
    monkeypatch.setattr(
        terminal, "Terminal", lambda **options: real(file=stream, force_terminal=True, width=80, color_system=None)
    )
    place = "runs/a-folder-of-a-long-name/below-another-one/shards/1-of-2"
    with terminal.progress("measuring", 36_000, shown=True, unit="results", where=place) as advance:
        for _ in range(9):
            time.sleep(0.02)
            advance(2_000, "feature-drop")
    last = [line for line in stream.getvalue().replace("\x1b", "\n").splitlines() if "feature-drop" in line][-1]
    assert re.search(r"feature-drop .*18,000/36,000 results [\d,.]+/s .*\d left into runs.*…", last), last
    assert len(last.partition("K")[2]) <= 80


def test_words_between_colons_are_no_pictures_in_sentences_and_tables():
    from rich.table import Table

    from ipvit.core.terminal import Terminal

    stream = io.StringIO()
    console = Terminal(file=stream, width=80)
    table = Table("net.py:star:", title=":star:")
    table.add_row("net.py:heart:")
    console.print("net.py:three: 33 %", highlight=False)
    console.print(table)
    assert all(word in stream.getvalue() for word in ("net.py:three:", "net.py:heart:", "net.py:star:", " :star:"))


def test_a_line_is_never_broken_between_a_number_and_its_per_cent_sign(capsys):
    from ipvit.core.terminal import Terminal

    Terminal(width=12).print("a falls to 100 % here")
    assert capsys.readouterr().out.splitlines() == ["a falls to ", "100 % here"]
    Terminal(width=16).print("it keeps 3 [1.2, 4.5], p < 0.001")
    assert capsys.readouterr().out.splitlines() == ["it keeps 3 ", "[1.2, 4.5], ", "p < 0.001"]
