"""``ipvit calibration``: what run folders say of confidences, without a pass."""

import json
import shutil
from typing import Any

import polars as pl
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar

import ipvit
from helpers.paths import KEPT
from helpers.small_runs import CLASSES, photos, small_occlusion
from helpers.tiny import tiny_model
from ipvit.cli import main
from ipvit.core.digests import digest_of
from ipvit.data.dataset import MemoryDataset
from ipvit.verdicts.calibration import calibration

N = 120


def sure_model(seed=0):
    """A network with logits far apart, so that a temperature has something to do."""
    model = tiny_model(seed, name=f"net {seed}")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)
    return model


def data_of_two_thirds():
    """Photos that the first network is right about in two of three cases, and by chance in the third."""
    pixels = torch.stack([photos(N).read(i) for i in range(N)])
    with torch.no_grad():
        said = sure_model(0)(pixels.float() / 255).argmax(1)
    labels = torch.where(torch.arange(N) % 3 > 0, said, torch.arange(N) // 3 % 4).numpy()
    return MemoryDataset(pixels, labels, CLASSES, ids=[f"photo {i}" for i in range(N)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    experiments = [ipvit.Accuracy(), small_occlusion(runs=1)]
    models = [sure_model(0), sure_model(1)]
    ipvit.run(experiments, models=models, data=data_of_two_thirds(), out=out, workers=0, progress=False)
    return out


def test_every_condition_has_a_row_with_its_measures(folder, capsys):
    assert main(["calibration", str(folder), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["tables"]["calibration"]
    occlusion = [row for row in rows if row["experiment"] == "occlusion" and row["model"] == "net 0"]
    assert occlusion[0]["condition"] == "clean"
    assert "50 %" in occlusion[2]["condition"]
    records = ipvit.Run(folder).records("occlusion").filter(pl.col("model") == "net 0")
    for row in occlusion:
        mine = records.filter((pl.col("information_loss") - row["level"]).abs() < 1e-6)
        assert row["confidence"] == pytest.approx(mine["confidence"].mean(), abs=1e-5)
        assert row["ece_plain"] == pytest.approx(ipvit.metrics.ece(mine["confidence"], mine["correct"]), abs=1e-6)
        assert row["n_images"] == N


def test_figures_and_tables_are_in_the_run_folder(folder):
    assert main(["calibration", str(folder)]) == 0
    for name in ("calibration", "calibration-temperature", "calibration-reliability", "calibration-risk"):
        assert (folder / "tables" / f"{name}.csv").is_file()
    for name in ("reliability", "occlusion", "risk"):
        assert (folder / "figures" / f"calibration-{name}.svg").stat().st_size > 1000


def test_temperature_is_fitted_to_one_half_and_judged_on_the_other(folder):
    row = calibration(ipvit.Run(folder)).tables["calibration-temperature"].row(0, named=True)
    data, model = data_of_two_thirds(), sure_model(0)
    with torch.no_grad():
        logits = model(torch.stack([data.read(i) for i in range(N)]).float() / 255).double()
    labels = torch.as_tensor(data.labels).long()
    even = torch.tensor([int(digest_of(name.encode(), 16), 16) % 2 == 0 for name in data.ids])

    def loss(temperature, half):
        return float(F.cross_entropy(logits[half] / temperature, labels[half]))

    found: Any = minimize_scalar(lambda t: loss(t, even), bounds=(0.36, 5.6), method="bounded")
    best = float(found.x)
    assert 0.4 < best < 5
    assert row["temperature"] == pytest.approx(best, rel=0.01)
    assert row["temperature_low"] <= row["temperature"] <= row["temperature_high"]
    assert row["nll"] == pytest.approx(loss(1.0, ~even), abs=1e-3)
    assert row["nll_scaled"] == pytest.approx(loss(best, ~even), abs=5e-3)
    assert (row["n_fitted"], row["n_judged"]) == (int(even.sum()), int((~even).sum()))
    p = (logits[~even] / best).softmax(1)
    brier = float(((p - F.one_hot(labels[~even], 4)) ** 2).sum(1).mean())
    assert row["brier_scaled"] == pytest.approx(brier, abs=5e-3)


def test_reliability_and_risk_are_of_clean_images(folder):
    tables = calibration(ipvit.Run(folder)).tables
    bins = tables["calibration-reliability"].filter(pl.col("model") == "net 0")
    assert bins["n_images"].sum() == N
    right = ipvit.Run(folder).records("accuracy").filter(pl.col("model") == "net 0")["correct"]
    assert (bins["accuracy"] * bins["n_images"]).sum() == pytest.approx(right.sum())
    last = tables["calibration-risk"].filter(pl.col("model") == "net 0").row(-1, named=True)
    assert (last["coverage"], last["risk"]) == (1.0, pytest.approx(1 - right.sum() / N))


def test_old_folder_says_what_it_does_not_hold(capsys, tmp_path):
    shutil.copytree(KEPT / "runs" / "all-experiments", tmp_path / "run")
    assert main(["calibration", str(tmp_path / "run")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Temperature not recorded: deit, resnet" in said
    assert "brier not recorded" in said
    table = pl.read_json(tmp_path / "run" / "tables" / "calibration.json", infer_schema_length=None)
    assert table["ece"].null_count() == 0
    assert not (tmp_path / "run" / "tables" / "calibration-temperature.json").exists()


def test_folder_without_a_run_is_refused(capsys, tmp_path):
    assert main(["calibration", str(tmp_path)]) == 2
    assert "run" in capsys.readouterr().err


def test_terminal_of_80_columns_has_lines_of_80(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["calibration", str(folder)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("tables:")]
    assert max(map(len, lines)) <= 80


def test_run_without_confidences_is_refused(capsys, tmp_path):
    given = {"models": "demo:deit_micro", "data": "demo:trifeature", "limit": 4, "workers": 0, "progress": False}
    ipvit.run(ipvit.Correlation(grid="8x8"), out=tmp_path, **given)
    assert main(["calibration", str(tmp_path)]) == 2
    assert "no records of confidences" in capsys.readouterr().err
