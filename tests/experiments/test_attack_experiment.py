"""The attack experiment in a run: what is measured on what, resuming, transfer, saved patches, mistakes."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from torch import nn

import ipvit
from helpers.comparison import printed
from helpers.plain_loops import same_from_everywhere, same_records, working_folder
from helpers.tiny import tiny_model
from ipvit.cli import main
from ipvit.data.dataset import MemoryDataset
from ipvit.errors import InputError
from ipvit.experiments.attack.patch_files import load_patch
from ipvit.experiments.attack.patches import training_positions
from ipvit.perturb.attack import is_right, pgd, random_starts
from ipvit.perturb.seeding import keys

CLASSES = [f"c{i}" for i in range(4)]


class Curvy(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.GELU(), nn.Flatten(), nn.Linear(128, 4))
        with torch.no_grad():
            self.net[-1].weight.mul_(15)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def network(seed: int = 0, name: str = "net") -> ipvit.Model:
    return ipvit.wrap(Curvy(seed), size=16, crop_pct=1.0, classes=CLASSES, name=name)


def photos(n: int = 40, right_for: ipvit.Model | None = None, seed: int = 0) -> MemoryDataset:
    """Images with the labels that a network gives them, but for every fifth."""
    pixels = torch.randint(0, 256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    labels = (right_for or network())(pixels.float() / 255).argmax(1)
    labels[::5] = (labels[::5] + 1) % 4
    return MemoryDataset(pixels, labels, CLASSES, ids=[f"photo {i}" for i in range(n)])


def small(**changes) -> ipvit.Attack:
    return ipvit.Attack(
        **{
            "attacks": ("fgsm", "pgd", "patch"),
            "epsilons": (1, 4),
            "patch_areas": (0.06, 0.2),
            "patch_steps": 6,
            "patch_batch": 8,
            "patch_rate": 0.3,
            "runs": 2,
        }
        | changes
    )


def run(experiment, models, data, out, **options) -> ipvit.Run:
    return ipvit.run(experiment, models=models, data=data, out=out, progress=False, **{"workers": 0} | options)


def measured(*arguments, **options) -> pl.DataFrame:
    result = run(*arguments, **options)
    assert not result.manifest.failures, result.manifest.failures
    return result.records("attack")


def patch_files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("patches/*/*"))}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> ipvit.Run:
    """Two networks under all attacks."""
    folder = tmp_path_factory.mktemp("attack")
    models = [network(0, "one"), network(1, "other")]
    result = run(small(), models, photos(), folder / "out")
    assert not result.manifest.failures
    return result


def test_the_records_are_those_of_the_pure_function(finished):
    model, data = network(0, "one"), photos()
    images = torch.stack([data.read(i) for i in range(len(data))]).float() / 255
    labels = torch.as_tensor(data.labels)

    def starts(restart):
        return random_starts(keys(data.ids, 0, "attack", "start", restart), (3, 16, 16))

    found = pgd(model, images, labels, 4.0, starts=starts)
    rows = finished.records("attack").filter(model="one", attack="pgd", epsilon=4.0)
    correct = dict(rows.select("image", "correct").iter_rows())
    assert [correct[name] for name in data.ids] == is_right(found.logits, labels).tolist()
    assert 0 < sum(correct.values()) < 32


def test_pixel_attacks_are_measured_on_all_images_patches_on_those_they_have_not_seen(finished):
    records = finished.records("attack")
    unseen = set(photos().ids) - {photos().ids[i] for i in training_positions(photos().ids, 20)}
    for (attack,), frame in records.group_by(["attack"]):
        assert set(frame["image"]) == (unseen if attack in ("patch", "noise") else set(photos().ids))
    assert finished.tables["attack-patch"]["n_images"].unique().to_list() == [20]


def test_tables_have_intervals_and_a_control(finished):
    table = finished.tables["attack"]
    assert table.columns[:3] == ["model", "attack", "epsilon"] and {"top1_low", "top1_high"} <= set(table.columns)
    clean, worst = (
        table.filter(model="one", attack=a, epsilon=e)["top1"][0] for a, e in (("clean", 0.0), ("pgd", 4.0))
    )
    assert clean == 80.0 and worst < clean
    patches = finished.tables["attack-patch"].filter(model="one")
    assert patches["patch"].to_list() == ["none", "noise", "trained", "noise", "trained"]
    assert patches["area"].to_list() == [0, 0.06, 0.06, 0.2, 0.2] and patches["n_runs"].to_list()[1:] == [2] * 4
    assert patches["covered"].to_list()[1:] == pytest.approx([0.06, 0.06, 0.2, 0.2], abs=0.02)
    noise, trained = patches["top1"].to_list()[3:]
    assert trained < noise
    sentences = finished.analyses["attack"].summary(finished.tables)
    assert any("one: of 80.0 % top-1" in said for said in sentences)
    few, many = (patches.filter(patch="trained", area=area)["top1"][0] for area in (0.06, 0.2))
    assert any(f"leaves {few:.1f} %, {many:.1f} % top-1, noise in its place" in said for said in sentences)


def test_success_is_the_share_of_right_images_that_a_patch_turns(finished):
    records = finished.records("attack").filter(model="one")
    right = set(records.filter(attack="clean", correct=True)["image"])
    rows = records.filter(attack="patch", source="own", area=0.2).filter(pl.col("image").is_in(list(right)))
    expected = 100 * (~rows["correct"]).mean()
    table = finished.tables["attack-patch"].filter(model="one", patch="trained", area=0.2)
    assert table["success"][0] == pytest.approx(expected)


def test_the_transfer_matrix_has_every_pair_of_networks(finished):
    table = finished.tables["attack-transfer"]
    pairs = set(table.select("trained_on", "model").iter_rows())
    assert pairs == {(a, b) for a in ("one", "other") for b in ("one", "other")}
    left = table.filter(trained_on="one", model="other", area=0.2)["top1"][0]
    said = finished.analyses["attack"].summary(finished.tables)
    assert f"Patches trained on one, 20 % of the image, leave other {left:.1f} % top-1." in said
    own = finished.tables["attack-patch"].filter(model="other", patch="trained", area=0.2)["top1"][0]
    assert table.filter(trained_on="other", model="other", area=0.2)["top1"][0] == pytest.approx(own)


def test_figures_report_and_pictures_are_made(finished):
    assert set(finished.figures) == {"attack", "attack-patch", "attack-transfer"}
    page = finished.report().read_text()
    assert "Adversarial attacks" in page
    captions = [picture.caption for pictures in finished.pictures("attack").values() for picture in pictures]
    for words in (
        "the image as it is",
        "PGD, ε = 4/255",
        "patch trained on other",
        "noise, 20 %",
        "the patch trained on",
    ):
        assert any(words in caption for caption in captions), words


def test_patches_are_kept_as_pictures_that_say_what_they_are(finished):
    names = list(finished.out.glob("patches/*/*.png"))
    assert len(names) == 2 * 2 * 2
    patch = load_patch(next(path for path in names if path.name.startswith("20pct") and "one-" in path.parent.name))
    assert patch.metadata.trained_on == "one" and patch.metadata.images == 20 and patch.metadata.steps == 6
    assert patch.metadata.look.area == 0.2 and patch.pixels.shape[1] == 9  # of a 16 pixel image


def test_a_run_done_in_parts_ends_with_the_same_patches_and_records(finished, tmp_path):
    models = [network(0, "one"), network(1, "other")]
    run(small(attacks=("pgd",), epsilons=(4,)), models[0], photos(), tmp_path, limit=10)
    run(small(runs=1), models[:1], photos(), tmp_path)
    last = run(small(), models, photos(), tmp_path, batch_size=7)
    same_records(finished.records("attack").filter(model="one"), last.records("attack").filter(model="one"))
    same_records(finished.records("attack").filter(model="other"), last.records("attack").filter(model="other"))
    assert patch_files(tmp_path) == patch_files(finished.out)


def test_nothing_is_trained_or_measured_again(finished, monkeypatch):
    monkeypatch.setattr("ipvit.experiments.attack.patches.train_patch", lambda *_, **__: pytest.fail("trained again"))
    again = run(small(), [network(0, "one"), network(1, "other")], photos(), finished.out)
    assert again.manifest.measured_in_this_call == 0
    renamed = run(small(), [network(0, "a new name"), network(1, "other")], photos(), finished.out)
    assert renamed.manifest.measured_in_this_call == 0


def test_a_run_killed_between_two_patches_goes_on_with_the_next(finished, tmp_path, monkeypatch):
    import ipvit.experiments.attack.patches as module

    plain, calls = module.train_patch, []

    def dying(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(*arguments, **options)

    monkeypatch.setattr(module, "train_patch", dying)
    models = [network(0, "one"), network(1, "other")]
    with pytest.raises(KeyboardInterrupt):
        run(small(), models, photos(), tmp_path)
    assert len(patch_files(tmp_path)) == 4
    same_records(
        finished.records("attack").filter(model="other"),
        run(small(), models, photos(), tmp_path).records("attack").filter(model="other"),
    )
    assert len(calls) == 3 + 6 and patch_files(tmp_path) == patch_files(finished.out)


def test_a_patch_whose_picture_was_lost_is_trained_again(finished, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(finished.out / "patches", folder / "patches")
    before = patch_files(folder)
    lost = next(folder.glob("patches/*/*.png"))
    lost.unlink()
    models = [network(0, "one"), network(1, "other")]
    result = run(small(), models, photos(), folder)
    assert not result.manifest.failures and patch_files(folder) == before


@pytest.mark.parametrize(
    ("suffix", "change"),
    [
        ("png", lambda data: data[: len(data) // 2]),
        ("png", lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]),
        ("png", lambda data: b""),
        ("json", lambda data: data[:40]),
        ("json", lambda data: data.replace(b'"area": 0.2', b'"area": 0.3').replace(b'"area": 0.06', b'"area": 0.3')),
    ],
)
def test_a_damaged_patch_is_trained_again_and_the_run_says_so(finished, tmp_path, suffix, change):
    folder = tmp_path / "out"
    shutil.copytree(finished.out / "patches", folder / "patches")
    before = patch_files(folder)
    path = next(folder.glob(f"patches/one-*/*.{suffix}"))
    path.write_bytes(change(path.read_bytes()))
    result = run(small(), [network(0, "one"), network(1, "other")], photos(), folder)
    assert not result.manifest.failures and patch_files(folder) == before
    (note,) = result.manifest.notes
    assert path.stem in note and note.endswith("it was trained again") and "\n" not in note
    same_records(finished.records("attack"), result.records("attack"))


def test_a_saved_patch_attacks_another_network_as_it_did_in_the_matrix(finished, tmp_path):
    files = [str(path) for path in sorted(finished.out.glob("patches/one-*/20pct*.png"))]
    assert len(files) == 2
    experiment = small(attacks=("patch",), patch_files=files, patch_areas=(0.4,))
    records = measured(experiment, [network(1, "victim")], photos(), tmp_path)
    assert records.filter(attack="patch")["image"].n_unique() == 20, "not those that the patch was trained on"
    now = records.filter(attack="patch").sort("run", "image")["correct"].to_list()
    matrix = (
        finished.records("attack").filter(model="other", attack="patch", area=0.2).filter(pl.col("source") != "own")
    )
    assert now == matrix.sort("run", "image")["correct"].to_list()
    table = ipvit.Run(tmp_path, [experiment]).tables["attack-transfer"]
    assert table["n_runs"].to_list() == [2] and "training" not in table.columns
    assert table["trained_on"].unique().to_list() == ["one"] and not list(tmp_path.glob("patches/*"))


def test_images_of_another_split_train_and_all_images_are_measured(tmp_path, monkeypatch):
    others = photos(30, seed=9)
    monkeypatch.setattr("ipvit.api.load_dataset", lambda source: others if source == "another split" else source)
    experiment = small(attacks=("patch",), patch_data="another split", patch_images=20, runs=1, patch_areas=(0.2,))
    records = measured(experiment, network(), photos(), tmp_path)
    assert records.filter(attack="patch")["image"].n_unique() == 40
    metadata = json.loads(next(tmp_path.glob("patches/*/*.json")).read_text())
    assert metadata["data"] == others.fingerprint and metadata["images"] == 20


def test_a_targeted_patch_reports_how_often_its_class_is_seen(tmp_path):
    experiment = small(attacks=("patch",), patch_target="c2", patch_areas=(0.3,), runs=1, patch_steps=20)
    result = run(experiment, network(), photos(), tmp_path)
    rows = result.records("attack").filter(attack="patch")
    clean = result.records("attack").filter(attack="clean", correct=True)
    judged = rows.filter(pl.col("image").is_in(clean["image"].to_list()), pl.col("label") != 2)
    table = result.tables["attack-patch"].filter(patch="trained")
    assert table["success"][0] == pytest.approx(100 * (judged["prediction"] == 2).mean())


def test_a_network_that_is_always_wrong_has_no_patch_but_everything_else(tmp_path):
    data = photos()
    wrong = MemoryDataset(data._images, (data.labels + 1) % 4, CLASSES, ids=data.ids)
    wrong.labels[::5] = (data.labels[::5] + 2) % 4
    result = run(small(transfer=False), network(), wrong, tmp_path)
    assert set(result.records("attack")["attack"]) == {"clean", "fgsm", "pgd", "noise"}
    (failure,) = result.manifest.failures
    assert "gets them all wrong" in failure.error and "patch" in failure.condition


def test_aligned_and_unaligned_patches_are_told_apart(tmp_path):
    experiment = small(
        attacks=("patch",),
        patch_shape="square",
        patch_placements=("grid", "off_grid"),
        patch_grid="4x4",
        patch_areas=(0.25,),
        runs=1,
    )
    table = run(experiment, network(), photos(), tmp_path).tables["attack-patch"]
    trained = table.filter(patch="trained")
    assert trained["placement"].to_list() == ["grid", "off_grid"] and trained["covered"].to_list() == [0.25, 0.25]


def test_a_patch_that_no_image_is_left_for_is_told(finished):
    only_clean = {"attack": finished.tables["attack"].filter(attack="clean")}
    patch = ipvit.Attack(attacks=("patch",)).analysis()
    assert "No image was left to measure patches on" in patch.summary(only_clean)[-1]
    assert patch.summary(finished.tables) == finished.analyses["attack"].summary(finished.tables)


def test_the_papers_numbers_stand_beside_those_of_its_networks(tmp_path):
    rows = printed("attack", "deit_small")
    assert rows.filter(attack="pgd", epsilon=2.0)["top1"].to_list() == [8.1]
    assert rows.filter(attack="patch", area=0.25)["top1"].to_list() == [10.8]
    model, images = tiny_model(size=224, name="DeiT-S"), photos()
    model.origin = ("paper:deit_small", True)
    images.ids = [f"n01440764/ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, len(images) + 1)]
    result = run(small(attacks=("fgsm", "patch"), runs=1), model, images, tmp_path)
    assert "DeiT-S (paper)" in result.figures["attack"].to_json()
    assert "DeiT-S (paper)" not in result.figures["attack-patch"].to_json(), "trained in another way"
    compared = result.compare()
    assert compared.filter(target="fig13_fgsm")["paper"].to_list() == [36.9], "epsilon 4 is among ours"


def test_the_command_line_a_study_and_python_measure_the_same(tmp_path, monkeypatch):
    working_folder(tmp_path, monkeypatch)
    parameters = {
        "attacks": ["fgsm", "pgd", "patch"],
        "epsilons": [2.0, 8.0],
        "patch_areas": [0.2],
        "patch_steps": 3,
        "patch_batch": 2,
        "runs": 1,
    }
    records = same_from_everywhere("attack", parameters)
    assert records["attack"].n_unique() >= 4


def last_line(capsys) -> str:
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--attacks", "deepfool"], "deepfool"),
        (["--epsilons", "300"], "255"),
        (["--epsilons", "0"], "must be more than 0"),
        (["--epsilons", "0.03"], "0.03 of them or that share of the pixel range: write 0.03/255 or 7.65"),
        (["--epsilons", "8/256"], "not '8/256'"),
        (["--epsilons", "many"], "must be a number"),
        (["--restarts", "2", "--no-random-start"], "random start"),
        (["--attacks", "patch", "--patch-areas", "0.7"], "0.5"),
        (["--attacks", "patch", "--patch-target", "teapot"], "no class 'teapot'"),
        (["--attacks", "patch", "--patch-placements", "grid"], "only squares"),
        (["--attacks", "patch", "--patch-placements", "grid", "--patch-shape", "square"], "32x32 pixels; 16x16 would"),
        (
            ["--attacks", "patch", "--patch-placements", "grid", "--patch-shape", "square"]
            + ["--patch-grid", "4x4", "--patch-areas", "0.05", "0.06"],
            "both 8 pixels wide on the grid 4x4",
        ),
        (["--attacks", "patch", "--patch-data", "images"], "very images it is measured on"),
        (["--attacks", "patch", "--patch-data", "nowhere"], "no data 'nowhere'"),
        (["--attacks", "patch", "--patch-files", "nothing.png"], "cannot read the patch file"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_is_wrong(options, words, tmp_path, monkeypatch, capsys):
    working_folder(tmp_path, monkeypatch)
    command = ["attack", "--model", "nets.py:net", "--data", "images", "--out", "out", "--workers", "0"]
    assert main([*command, *options]) == 2
    assert words in last_line(capsys)
    assert not (tmp_path / "out" / "records").exists()


def test_a_network_without_gradients_leaves_a_note(tmp_path):
    class Stepped(Curvy):
        def forward(self, x):
            return super().forward((x * 4).round() / 4)

    model = ipvit.wrap(Stepped(), size=16, crop_pct=1.0, classes=CLASSES, name="stepped")
    result = run(small(attacks=("fgsm",)), model, photos(20), tmp_path)
    assert result.tables["attack"].filter(attack="fgsm")["no_gradient"].min() > 50
    sentences = result.analyses["attack"].summary(result.tables)
    assert any("blind" in sentence for sentence in sentences)


def test_the_weights_ask_for_gradients_again_afterwards(tmp_path):
    model = network()
    model.backbone.net[0].bias.requires_grad_(False)
    run(small(), model, photos(20), tmp_path)
    asked = [weight.requires_grad for weight in model.parameters()]
    assert asked == [True, False, True, True] and all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize(
    ("given", "levels"), [("8/255", 8), ("8", 8), (1.0, 1), ("0.5/255", 0.5), ("0.03/255", 0.03), (" 4 / 255 ", 4)]
)
def test_epsilons_are_grey_levels_however_they_are_written(given, levels):
    assert ipvit.Attack(epsilons=(given,)).epsilons == (levels,)


def test_a_fraction_that_python_has_worked_out_is_refused_with_both_readings():
    with pytest.raises(ValueError, match=r"write 0.0313725/255 or 8/255"):
        ipvit.Attack(epsilons=(8 / 255,))


@pytest.mark.parametrize(
    ("norm", "plain", "words"),
    [
        ("linf", 0.1, "write 0.1/255 or 25.5/255"),
        ("linf", "0.5", "write 0.5/255 or 127.5/255"),
    ],
)
def test_a_plain_number_that_papers_write_as_a_share_of_the_range_is_refused(norm, plain, words):
    with pytest.raises(ValueError, match=words):
        ipvit.Attack(attacks=("own.py:f",), norm=norm, epsilons=(plain,))
    unit = f"{plain}/255"
    assert ipvit.Attack(attacks=("own.py:f",), norm=norm, epsilons=(unit,)).epsilons == (float(plain),)


@pytest.mark.parametrize(("norm", "given", "size"), [("l2", 0.5, 0.5), ("l2", "128/255", 128 / 255), ("l1", "12", 12)])
def test_budgets_in_l2_and_l1_are_on_images_from_0_to_1(norm, given, size):
    made = ipvit.Attack(attacks=("square",), norm=norm, epsilons=(given,))
    assert made.epsilons == (size,) and ipvit.Attack(**made.model_dump(mode="json")) == made
    with pytest.raises(ValueError, match=f"must be given in {norm}, of pixels from 0 to 1"):
        ipvit.Attack(attacks=("square",), norm=norm)


def test_the_kept_study_says_the_unit_where_it_must_and_is_read_again():
    made = ipvit.Attack(epsilons=("0.25/255", 2, "0.03/255"))
    written = made.model_dump(mode="json")
    assert written["epsilons"] == ["0.25/255", 2.0, "0.03/255"]
    assert ipvit.Attack(**written) == made


def test_a_targeted_patch_says_its_target_and_how_often_it_is_reached(tmp_path):
    experiment = small(attacks=("patch",), patch_areas=(0.2,), patch_target="c2", runs=1)
    found = run(experiment, network(), photos(), tmp_path)
    (row,) = found.tables["attack-patch"].filter(patch="trained").to_dicts()
    records = found.records("attack")
    clean = records.filter(pl.col("attack") == "clean", pl.col("correct"), pl.col("label") != 2)["image"]
    shown = records.filter(pl.col("attack") == "patch", pl.col("image").is_in(list(clean)))
    reached = 100 * (shown["prediction"] == 2).mean()
    assert row["target"] == "c2" and row["success"] == pytest.approx(reached)
    (sentence,) = found.summary["attack"]
    assert f"other classes are taken for c2, its target, in {reached:.1f} %, with noise in" in sentence


def test_the_grid_of_patches_is_that_of_the_networks_own_whatever_else_is_in_the_study():
    from ipvit.experiments.base import BindContext

    experiment = small(
        attacks=("patch",), patch_placements=("grid",), patch_shape="square", patch_areas=(0.25,), patch_images=10
    )
    coarse, fine = (
        ipvit.load_model(
            f"vit_tiny_patch16_224?img_size={size}&patch_size={size // cells}&depth=1&num_classes=10", pretrained=False
        )
        for size, cells in ((32, 4), (48, 6))
    )
    convolutional = ipvit.load_model("demo:resnet_micro")
    data = ipvit.load_dataset("demo:trifeature")
    context = BindContext(ipvit.load_dataset)

    def grids(model, *models):
        conditions = experiment.bind(models, data, context).conditions(model)
        return {condition.grid for condition in conditions if condition.attack == "noise"}

    assert grids(coarse, coarse) == grids(coarse, coarse, fine) == {"4x4"}
    assert grids(fine, coarse, fine) == {"6x6"}
    with pytest.raises(InputError, match="14x14 does not divide"):
        grids(convolutional, convolutional)  # has no patches: the paper's grid, which another would not change
    measurement = experiment.bind((coarse, fine), data, context)
    assert "grid of 6x6 does not divide its input" in measurement.notes(coarse)[0]
    assert {condition.source for condition in measurement.conditions(coarse)} == {"", "own"}
