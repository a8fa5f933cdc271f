"""A run that is killed at any moment continues, and ends with the same records bit for bit."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from helpers.crashes import STUDY, wait_for
from helpers.forks import Python
from helpers.tiny import write_images
from ipvit.engine.store import Store


@pytest.fixture(scope="module")
def setting(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("crash")
    (folder / "study.py").write_text(STUDY)
    return folder / "study.py", write_images(folder / "images", per_class=12)


def start(setting, out: Path, delay: float) -> Python:
    return Python([*setting, out, delay])


def finish(process: Python) -> None:
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors


@pytest.mark.slow
def test_twenty_kills_at_random_moments_lose_nothing_and_change_nothing(setting, tmp_path):
    finish(start(setting, tmp_path / "whole", 0))
    reference = Store(tmp_path / "whole").records("occlusion")
    assert len(reference) == 48 * 10

    out, dice, kills = tmp_path / "killed", random.Random(0), 0
    while kills < 20:
        process = start(setting, out, 0.1)
        parts = len(list(out.glob("records/*/*/part-*")))
        if dice.random() < 0.5:  # in the middle of the work, otherwise at any moment from its start
            wait_for(lambda parts=parts: len(list(out.glob("records/*/*/part-*"))) > parts, process)
            time.sleep(dice.random() * 0.1)
        else:
            time.sleep(dice.random())
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        kills += 1
    assert kills == 20
    finish(start(setting, out, 0))
    assert Store(out).records("occlusion").equals(reference)


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_measured_and_the_same_call_goes_on(setting, tmp_path):
    process = start(setting, tmp_path, 0.05)
    wait_for(lambda: list(tmp_path.glob("records/*/*/part-*")), process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    kept = len(Store(tmp_path).records("occlusion"))
    assert process.returncode != 0 and 0 < kept < 480
    finish(start(setting, tmp_path, 0))
    assert len(Store(tmp_path).records("occlusion")) == 480


@pytest.mark.slow
def test_a_second_process_on_the_same_folder_says_so_and_stops(setting, tmp_path):
    first = start(setting, tmp_path, 0.5)
    wait_for(lambda: (tmp_path / "manifest.json").exists(), first)
    second = start(setting, tmp_path, 0)
    _, errors = second.communicate(timeout=120)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert second.returncode != 0
    assert f"is in use by process {first.pid}" in errors
