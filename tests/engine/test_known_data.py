"""Records are found under the fingerprint they were measured with, as long as the files are the same."""

import numpy as np
import pytest
from PIL import Image

import ipvit
from helpers.files import change_byte
from helpers.small_runs import CLASSES, small_occlusion
from helpers.tiny import tiny_model
from ipvit.api import bind_context
from ipvit.core.run_config import RunConfig
from ipvit.data.fingerprints import under
from ipvit.engine import manifest, run
from ipvit.engine.costs.estimate import estimate
from ipvit.engine.types import Selected


@pytest.fixture
def folder(tmp_path):
    for name in CLASSES:
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(2):
            pixels = np.random.default_rng(number).integers(0, 256, (90, 90, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.jpg", quality=95)
    return tmp_path / "images"


@pytest.fixture
def measure(folder, tmp_path):
    def measured(**options):
        return ipvit.run(
            small_occlusion(runs=1),
            models=tiny_model(),
            data=str(folder),
            out=tmp_path / "run",
            progress=False,
            **options,
        ).manifest

    return measured


@pytest.fixture
def as_before(monkeypatch):
    """Measure as the version did that knew the first scheme only."""

    def begin(measure):
        with monkeypatch.context() as patch:
            patch.setattr(run, "known_as", lambda data, *_, **__: under(data, data.earlier_fingerprint))
            patch.setattr(manifest, "_other_schemes", lambda *_: {})
            return measure()

    return begin


def test_records_of_the_first_scheme_are_found_until_the_files_change(folder, measure, as_before):
    first = as_before(measure)
    assert len(first.data.fingerprint) == 32
    again = measure()
    assert again.measured_in_this_call == 0
    assert again.data.fingerprint == first.data.fingerprint
    assert list(again.fingerprints) == [first.data.fingerprint]
    path = folder / "c0" / "0.jpg"
    change_byte(path, path.stat().st_size // 4 + 5)  # the first scheme did not look there
    changed = measure()
    assert changed.measured_in_this_call == first.measured_in_this_call
    assert changed.data.fingerprint.startswith("samples-2:")


def test_a_check_finds_the_records_that_the_run_would(folder, tmp_path, measure, as_before):
    first = as_before(measure)
    model, data, selected = tiny_model(), ipvit.load_dataset(folder), [Selected(small_occlusion(runs=1))]

    def left(**settings):
        config = RunConfig(workers=0, **settings)
        return estimate(selected, [model], data, config, tmp_path / "run", bind_context()).parts[0].results

    assert left() == 0
    assert left(fresh=True) == first.measured_in_this_call
    assert left(verify=True) == first.measured_in_this_call  # nothing says which bytes the results are of


def test_all_bytes_are_read_where_that_is_asked_for(folder, measure):
    measured = measure().measured_in_this_call
    whole = measure(verify=True)
    assert whole.measured_in_this_call == measured  # nothing says which bytes the first results are of
    assert whole.data.fingerprint.startswith("bytes-2:")
    assert measure(verify=True).measured_in_this_call == 0
    assert measure().measured_in_this_call == 0
    path = folder / "c1" / "1.jpg"
    change_byte(path, path.stat().st_size // 8)  # between two samples
    assert measure().measured_in_this_call == 0
    assert measure(verify=True).measured_in_this_call == measured


def test_a_copy_begun_under_the_first_scheme_goes_on(folder, tmp_path):
    from ipvit.data.derived.corrupted import CorruptedCopy
    from ipvit.data.derived.folder import CopyFolder

    data = ipvit.load_dataset(folder)
    view = tiny_model().preprocessing.view
    out = tmp_path / "copy"
    out.mkdir()
    before = under(data, data.earlier_fingerprint)
    CopyFolder(CorruptedCopy(source=before, view=view, corruptions=("fog",), severities=(1,)), out)
    job = CorruptedCopy(source=data, view=view, corruptions=("fog",), severities=(1,))
    assert CopyFolder(job, out).job.source.fingerprint == data.earlier_fingerprint
    change_byte(folder / "c0" / "0.jpg", (folder / "c0" / "0.jpg").stat().st_size // 2)
    with pytest.raises(ipvit.InputError, match="another source"):
        CopyFolder(
            CorruptedCopy(source=ipvit.load_dataset(folder), view=view, corruptions=("fog",), severities=(1,)), out
        )
