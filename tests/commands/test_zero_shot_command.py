"""Zero-shot models on the command line and in studies: what was asked for stands wherever a number of theirs does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import ipvit
from helpers.command_line import complaint
from helpers.zero_shot import clip_folder, open_clip_folder
from ipvit.cli import main
from ipvit.core.manifest import Manifest

pytest.importorskip("open_clip")
CLASSES = ("school_bus", "tabby_cat", "granny_smith")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"open_clip:{open_clip_folder(tmp_path_factory.mktemp('models') / 'clip')}"


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_photos(tmp_path / "photos", seed=0)
    return tmp_path / "photos"


def write_photos(folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(3):
            coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
            coarse.resize((40, 36), Image.Resampling.BICUBIC).save(folder / name / f"{number}.png")


def manifest(folder: str) -> Any:
    return Manifest.model_validate_json(Path(folder, "manifest.json").read_text())


def test_two_sets_of_prompts_are_two_models_and_stand_in_manifest_table_and_caption(clip: str, capsys) -> None:
    command = ["accuracy", "-m", f"clip={clip}", "-d", "photos", "--out", "run", "--workers", "0"]
    sets = ["--prompts", "a photo of a {}", "--prompts", "openai80"]
    assert main([*command, *sets]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "clip [openai80]: zero-shot, 3 class names of the classes of photos, the 80 prompts openai80" in printed
    used = {model.name: model.texts for model in manifest("run").models}
    assert set(used) == {"clip [a photo of a {}]", "clip [openai80]"}
    assert used["clip [openai80]"].words == ("granny smith", "school bus", "tabby cat")
    assert used["clip [openai80]"].outputs == ("granny_smith", "school_bus", "tabby_cat")
    assert len(used["clip [openai80]"].prompts) == 80
    caption = next(line for line in Path("run/tables/accuracy.tex").read_text().splitlines() if "\\caption" in line)
    assert "the 80 prompts openai80" in caption
    page = Path("run/report.html").read_text()
    assert page.count("the 80 prompts openai80") >= 2  # the set-up and the caption of the table
    study = yaml.safe_load(Path("run/study.yaml").read_text())
    assert study["prompts"] == ["a photo of a {}", "openai80"]
    assert main(["run", "run/study.yaml", "--out", "run", "--workers", "0", "--quiet"]) == 0
    assert manifest("run").measured_in_this_call == 0


def test_the_answers_are_those_of_the_model_itself(clip: str) -> None:
    command = ["accuracy", "-m", clip, "-d", "photos", "--out", "run", "--workers", "0", "--quiet"]
    assert main(command) == 0
    records = ipvit.results.Run("run").records("accuracy")
    model: Any = ipvit.load_model(clip, class_names=ipvit.load_dataset("photos"))
    from ipvit.data.decode import apply_view

    for row in records.iter_rows(named=True):
        picture = np.asarray(Image.open(Path("photos", row["image"])).convert("RGB"))
        import torch

        pixels = apply_view(torch.from_numpy(picture.copy()).permute(2, 0, 1), model.preprocessing.view)[None] / 255
        assert row["prediction_name"] == model.classes[int(model(pixels).argmax())]


def test_class_names_of_a_file_are_the_outputs(clip: str) -> None:
    Path("names.txt").write_text("school_bus\tyellow bus\ntabby_cat\tcat\ngranny_smith\tapple\nother\tsomething else\n")
    command = ["accuracy", "-m", clip, "-d", "photos", "--class-names", "names.txt", "--out", "run", "--workers", "0"]
    assert main([*command, "--quiet"]) == 0
    (model,) = manifest("run").models
    assert model.texts.words == ("yellow bus", "cat", "apple", "something else")
    assert manifest("run").subject("accuracy").among[model.digest] == (4, 4)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--prompts", "no place"], "a prompt holds {} where the class name stands"),
        (["--prompts", "{} {}"], "a prompt holds {} once"),
        (["--class-names", "nowhere.txt"], "there is no such file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_code_2(clip: str, capsys, more: list[str], said: str) -> None:
    assert main(["accuracy", "-m", clip, "-d", "photos", *more]) == 2
    assert said in complaint(capsys)
    assert not Path("runs").exists()


def test_prompts_that_nobody_reads_are_refused(capsys) -> None:
    assert main(["accuracy", "-m", "demo:deit_micro", "-d", "demo:trifeature", "--prompts", "openai80"]) == 2
    assert "prompts are for zero-shot models" in complaint(capsys)


def test_a_study_names_prompts_for_one_model(clip: str) -> None:
    entries = [{"name": clip, "label": "one", "prompts": "the {}"}, {"name": clip, "label": "two"}]
    study = {"models": entries, "data": "photos", "experiments": ["accuracy"], "class_names": list(CLASSES)}
    study["class_names"] = ["school_bus", "tabby_cat", "granny_smith"]
    Path("study.yaml").write_text(yaml.safe_dump(study))
    assert main(["run", "study.yaml", "--out", "run", "--workers", "0", "--quiet"]) == 0
    assert {model.name: model.texts.prompts for model in manifest("run").models} == {
        "one": ("the {}",),
        "two": ("a photo of a {}",),
    }


def test_a_run_from_python_is_repeated_from_its_file(clip: str) -> None:
    run: Any = ipvit.run(
        ipvit.Accuracy(), models=clip, data="photos", prompts=["the {}", "my {}"], out="run", workers=0, progress=False
    )
    assert run.manifest.models[0].texts.prompts == ("the {}", "my {}")
    assert main(["run", "run/study.yaml", "--out", "run", "--workers", "0", "--quiet"]) == 0
    assert manifest("run").measured_in_this_call == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["open_clip", "transformers"])
def test_every_kind_of_experiment_runs_on_it(clip: str, tmp_path: Path, kind: str) -> None:
    name = clip if kind == "open_clip" else f"transformers:{clip_folder(tmp_path / 'hf')}"
    common = ["-m", name, "--limit", "6", "--workers", "0", "--quiet"]
    photos = ["-d", "photos", *common]
    assert main(["occlusion", *photos, "--grid", "4x4", "--levels", "0", "0.5", "--out", "o"]) == 0
    assert main(["shuffle", *photos, "--grids", "2x2", "--out", "s"]) == 0
    assert main(["attack", *photos, "--attacks", "pgd", "--epsilons", "1", "--out", "a"]) == 0
    assert main(["correlation", *photos, "--out", "c"]) == 0
    assert main(["attention", *photos, "--out", "t"]) == 0
    assert main(["feature-drop", *photos, "--out", "f"]) == 0
    write_photos(tmp_path / "others", seed=1)
    assert main(["probe", *photos, "--train", "others", "--out", "p"]) == 0
    heads = sorted(Path("p/probes").rglob("*.safetensors"))
    assert main(["accuracy", "-d", "photos", "-m", f"{name}@probe:{heads[0]}", "--workers", "0", "--out", "q"]) == 0
    shapes = ["airplane", "bear", "bicycle", "bird", "boat", "bottle", "car", "cat", "chair", "clock", "dog"]
    shapes += ["elephant", "keyboard", "knife", "oven", "truck"]
    for number, shape in enumerate(shapes):
        (tmp_path / "cue" / shape).mkdir(parents=True)
        other = shapes[number - 1]
        picture = Image.fromarray(np.full((32, 32, 3), 10 * number, dtype=np.uint8))
        picture.save(tmp_path / "cue" / shape / f"{shape}1-{other}2.png")
    assert main(["shape-bias", "-m", name, "-d", "cue-conflict:cue", "--workers", "0", "--quiet", "--out", "b"]) == 0
    content = json.loads(Path("b/tables/shape-bias.json").read_text())
    assert content[0]["n_images"] == 16


def test_a_tower_without_class_names_says_how_it_gets_them(clip: str, capsys, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "flat" / "a.png")
    assert main(["accuracy", "-m", clip, "-d", "flat"]) == 2
    assert "class" in complaint(capsys)


def test_models_lists_open_clips_names(capsys) -> None:
    assert main(["models", "open_clip:ViT-B-32/openai"]) == 0
    assert "open_clip:ViT-B-32/openai" in capsys.readouterr().out
