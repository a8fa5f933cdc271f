"""Several processes on one study: the same records as one, whoever dies on the way."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.crashes import STUDY, wait_for
from helpers.forks import Python, python, ranks
from helpers.paths import TESTS
from helpers.shards import web_shards
from helpers.tiny import write_images
from ipvit.engine.distributed import ProcessGroup, ProcessLostError, launched
from ipvit.engine.manifest import read_manifest
from ipvit.engine.store import Store

WEB_STUDY = """\
import sys, ipvit
from helpers.tiny import tiny_model

if __name__ == "__main__":
    shards, out, delay = sys.argv[1:4]
    data = ipvit.load_dataset("wds/grey", root=shards, split="grey-{0000..0001}.tar|10", classes=shards + "/names.txt")
    experiment = ipvit.Occlusion(grid="4x4", runs=1, levels=(0, 0.5))
    ipvit.run(experiment, models=tiny_model(), data=data, out=out, batch_size=2, workers=1, progress=False)
"""

COUNTED = """\
from ipvit.data.formats import folder
plain = folder.list_images

def counted(*arguments):
    place = os.path.dirname(sys.argv[2])
    open(f"{place}/listed-{os.environ['RANK']}", "a").write(".")
    return plain(*arguments)

folder.list_images = counted
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def setting(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("distributed")
    (folder / "study.py").write_text(STUDY)
    return folder / "study.py", write_images(folder / "images", per_class=12)


@pytest.fixture(scope="module")
def reference(setting, tmp_path_factory):
    out = tmp_path_factory.mktemp("reference") / "run"
    assert python([*setting, out, 0]).returncode == 0
    found = Store(out).records("occlusion")
    assert len(found) == 48 * 10
    return found


def surroundings(**more: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **more}


def torchrun(setting, count: int, out: Path, delay: float = 0) -> subprocess.Popen:
    script, images = setting
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return subprocess.Popen(
        [*launcher, script, images, out, str(delay)],
        env=surroundings(),
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )


def by_hand(setting, count: int, out: Path, delay: float = 0) -> list[Python]:
    """Start the processes without a launcher that would watch over them."""
    return ranks([*setting, out, delay], count)


def finish(process: subprocess.Popen | Python, code: int = 0) -> str:
    _, errors = process.communicate(timeout=300)
    assert (process.returncode == 0) == (code == 0), errors
    return errors


def parts(out: Path) -> list[Path]:
    return list(out.glob("records/*/*/part-*.parquet"))


def ranks_of(launcher: subprocess.Popen) -> list[int]:
    """Return the process numbers of the ranks that a launcher started."""
    return [int(n) for n in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()]


@pytest.mark.parametrize(("count", "launched"), [(1, False), (2, True), (3, False)])
def test_several_processes_measure_what_one_does_bit_for_bit(setting, reference, tmp_path, count, launched):
    start = torchrun if launched else by_hand
    started = start(setting, count, tmp_path / "run")
    for process in [started] if launched else started:
        finish(process)
    assert Store(tmp_path / "run").records("occlusion").equals(reference)
    manifest = read_manifest(tmp_path / "run")
    assert manifest.status == "done" and manifest.processes == count
    assert manifest.measured_in_this_call == 480 and manifest.images_used == 48
    assert len(parts(tmp_path / "run")) == 1, "the parts of all processes are joined"


def test_one_process_goes_through_the_files_for_all(setting, reference, tmp_path):
    _, images = setting
    counting = tmp_path / "study.py"
    counting.write_text(
        STUDY.replace("import sys", "import os, sys").replace("if __name__", f"{COUNTED}\nif __name__", 1)
    )
    for process in by_hand((counting, images), 2, tmp_path / "run"):
        finish(process)
    assert Store(tmp_path / "run").records("occlusion").drop("weights").equals(reference.drop("weights"))
    assert {path.name: path.read_text() for path in tmp_path.glob("listed-*")} == {"listed-0": "."}


def test_the_slowest_process_does_not_decide_when_the_run_is_over(setting, reference, tmp_path):
    _, images = setting
    slow = tmp_path / "slow.py"
    waiting = "os.environ['RANK'] == '1' and open(f'{sys.argv[2]}-1', 'a').write('.') and time.sleep(0.5)"
    slow.write_text(STUDY.replace("import sys", "import os, sys").replace("time.sleep(float(sys.argv[3]))", waiting))
    for process in by_hand((slow, images), 2, tmp_path / "run"):
        finish(process)
    records = Store(tmp_path / "run").records("occlusion")  # another network by its code, which waits
    assert records.drop("weights").equals(reference.drop("weights"))
    passes = len((tmp_path / "run-1").read_text())
    assert passes < 0.6 * 480 / 3 / 2, "passes of three images; half of them were its share"
    assert read_manifest(tmp_path / "run").measured_in_this_call == 480


def test_a_killed_process_is_noticed_and_another_number_of_processes_goes_on(setting, reference, tmp_path):
    out = tmp_path / "run"
    first = torchrun(setting, 3, out, delay=0.1)
    wait_for(lambda: len(parts(out)) > 2, first)
    os.kill(ranks_of(first)[-1], signal.SIGKILL)
    finish(first, code=1)
    kept = len(Store(out).records("occlusion"))
    assert 0 < kept < 480 and read_manifest(out).status in ("interrupted", "running")
    second = by_hand(setting, 2, out, delay=0.02)
    wait_for(lambda: len(Store(out).records("occlusion")) > kept, second[0])
    for process in second:  # all of them at once
        os.killpg(process.pid, signal.SIGKILL)
    for process in second:
        process.communicate()
    for process in by_hand(setting, 1, out):
        finish(process)
    assert Store(out).records("occlusion").equals(reference)


def test_without_a_launcher_the_others_notice_it_themselves(setting, reference, tmp_path):
    out = tmp_path / "run"
    processes = by_hand(setting, 2, out, delay=0.02)
    wait_for(lambda: parts(out), processes[0])
    processes[1].send_signal(signal.SIGKILL)
    processes[1].communicate()
    assert "another process of this run is gone; what is measured is kept" in finish(processes[0], code=1)
    assert read_manifest(out).status == "interrupted"
    for process in by_hand(setting, 3, out):
        finish(process)
    assert Store(out).records("occlusion").equals(reference)


def test_a_second_launch_on_the_same_folder_says_so_and_stops(setting, tmp_path):
    out = tmp_path / "run"
    first = by_hand(setting, 2, out, delay=0.3)  # still at work however long the second ones take to start
    wait_for(lambda: parts(out), first[0])
    second = by_hand(setting, 2, out)
    errors = [finish(process, code=2) for process in second]
    assert sum("is in use by process" in text for text in errors) == 1, "one of them says it"
    for process in first:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_data_read_from_the_front_is_shared_out_too(tmp_path):
    pytest.importorskip("webdataset")
    shards = tmp_path / "shards"
    web_shards(shards)
    (shards / "names.txt").write_text("c0\nc1\nc2\nc3\n")
    (tmp_path / "study.py").write_text(WEB_STUDY)
    found = []
    for count in (1, 2):
        for process in by_hand((tmp_path / "study.py", shards), count, tmp_path / f"run{count}"):
            finish(process)
        found.append(Store(tmp_path / f"run{count}").records("occlusion"))
    assert len(found[0]) == 20 and found[0].equals(found[1])
    assert sorted(found[0]["label"].unique()) == [0, 1, 2, 3]


def test_the_command_line_runs_on_several_processes_and_one_of_them_talks(tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text(
        "models: demo:resnet_micro\ndata: demo:trifeature\nlimit: 24\nbatch_size: 8\nworkers: 0\n"
        "experiments: {shuffle: {grids: [2x2]}}\n"
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "ipvit", "run", str(study), "--out"]
    done = subprocess.run(
        [*command, tmp_path / "run"], env=surroundings(), capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.count("report:") == 1 and (tmp_path / "run" / "report.html").is_file()
    assert read_manifest(tmp_path / "run").processes == 2
    study.write_text(study.read_text().replace("resnet_micro", "resnet_micra"))
    wrong = ranks(["-m", "ipvit", "run", study, "--out", tmp_path / "wrong"], 2)
    told = "".join(process.communicate(timeout=300)[1] for process in wrong)
    assert all(process.returncode for process in wrong) and told.count("there is no bundled model") == 1
    assert not (tmp_path / "wrong").exists()


def test_alone_there_is_nobody_to_wait_for(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with launched() as group:
        assert group.is_main_process and group.size == 1 and group.collect(3) == [3]
        assert group.main_process_first(lambda: "done") == "done"
        group.assert_same_on_all_ranks("anything", 1)
    assert isinstance(ProcessLostError(), OSError) and "\n" not in str(ProcessLostError())
    assert ProcessGroup().shard.of([1, 2]) == [1, 2]
