"""Any name becomes the name of one file or folder below the one that is written to."""

from __future__ import annotations

import dataclasses
import re
import tarfile
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
import torch
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st
from torch import nn

import ipvit
from helpers.command_line import NETWORK
from helpers.plain_loops import CLASSES, coloured, photos, tiny_vit, wrapped
from helpers.tiny import write_images
from helpers.training import tiny_recipe
from ipvit.cli import main
from ipvit.core.files import LONGEST, path_component, path_parts
from ipvit.core.preprocessing import View
from ipvit.data.derived.corrupted import CorruptedCopy
from ipvit.data.derived.folder import CopyFolder
from ipvit.data.formats.image_files import is_hidden
from ipvit.engine.store import Identity, Store
from ipvit.experiments.base import Condition
from ipvit.training import train

HOSTILE = [
    *("..", ".", "../x", "../../x/y", "/etc/passwd", "a/../../b", "..\\x", "\\\\host\\share", "C:\\x", "C:x"),
    *("CON", "nul.png", "com1", "a\u202eb", "\u200f", "a\nb", "a\x00b", "\ud800", "x" * 255, "é" * 200),
    *("", " ", "a.", "a ", ".hidden", "~", "-", "_"),
]
NAMES = st.one_of(st.text(max_size=30), st.sampled_from(HOSTILE), st.text("ab/.\\-_ :\u202eéCON1", max_size=90))


def is_one_component(name: str, most: int) -> bool:
    windows = PureWindowsPath(name)
    return (
        windows.parts == (name,)
        and not windows.drive
        and name not in (".", "..")
        and not name.endswith((".", " "))
        and not re.search(r'[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069<>:"/\\|?*]', name)
        and not re.fullmatch(r"(?i)(con|prn|aux|nul|(com|lpt)[0-9¹²³]) *(\..*)?", name)
        and len(name.encode()) <= most
    )


@given(NAMES, st.booleans(), st.sampled_from([40, 80, LONGEST]), st.sampled_from(["", ".png", ".JPEG"]))
@example("..", False, 80, "")
def test_a_name_becomes_one_component_on_any_file_system(name, plain, most, suffix):
    made = path_component(name, plain=plain, most=most, suffix=suffix)
    assert is_one_component(made, most) and made.endswith(suffix)
    if plain:
        assert re.fullmatch(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*", made)
    assert path_component(made, plain=plain, most=most) == made


@given(NAMES, NAMES, st.booleans())
def test_no_two_names_become_equal_where_one_had_to_be_changed(first, second, plain):
    made = [path_component(name, plain=plain) for name in (first, second)]
    assume(first != second)
    assert made[0] != made[1]


@given(st.from_regex(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,78}[A-Za-z0-9_+-]", fullmatch=True))
def test_a_name_that_can_be_a_file_stays(name):
    assume(not re.match(r"(?i)(con|prn|aux|nul|(com|lpt)[0-9])(\.|$)", name))
    assert path_component(name) == name


@pytest.mark.parametrize("name", ["red fox", "Füchse", "狐", "t-shirt (blue)", "what's that", "n01440764", "x" * 233])
def test_the_names_of_a_users_own_files_stay(name):
    assert path_component(name, plain=False, most=LONGEST) == name
    assert path_parts(f"{name}/{name}") == [name, name]


@given(NAMES)
@example("hf-hub:owner/name")
def test_folders_of_networks_are_named_as_ever(name):
    """The function that named them before, word for word, where it made a name that is safe everywhere."""
    before = re.sub(r"[^A-Za-z0-9._+-]+", "_", name).strip("._")[:80]
    assume(before and is_one_component(f"{before}-2d14873e", 90))
    assert path_component(name, mark="2d14873e") == f"{before}-2d14873e"


@given(NAMES)
def test_a_path_leads_nowhere_but_down(name):
    assert all(is_one_component(part, LONGEST) for part in path_parts(name))


# --- what writes files ---------------------------------------------------------------------------------------------


def everything_but(root: Path, *inside: str) -> set[Path]:
    return {path for path in root.rglob("*") if path.relative_to(root).parts[0] not in inside}


@dataclasses.dataclass
class Here:
    root: Path
    before: set[Path]

    def nothing_outside(self, *inside: str) -> bool:
        return everything_but(self.root, *inside) == self.before


@pytest.fixture
def here(tmp_path, monkeypatch) -> Here:
    (tmp_path / "desk").mkdir()
    monkeypatch.chdir(tmp_path / "desk")
    return Here(tmp_path / "desk", set())


MEMBERS = [
    *("../x.png", "../../y/x.png", "/abs/x.png", "..\\x.png", "CON/x.png", "a\u202eb/x.png", "c/../../w.png"),
    *(f"{'y' * 255}/x.png", f"c/{'z' * 251}.png", "../deep.png", ".hidden/x.png"),
]


@pytest.mark.parametrize("command", ["stylize", "corrupt", "cue-conflict"])
def test_members_of_an_archive_are_copied_below_the_output_folder_only(here, command):
    photo = write_images(here.root / "images", per_class=1, classes=1, size=(32, 32)) / "c0" / "000.jpg"
    members = [name for name in MEMBERS if "/" in name or command != "cue-conflict"]  # which needs classes
    with tarfile.open(here.root / "set.tar", "w") as archive:
        for name in members:
            member = archive.gettarinfo(photo)
            member.name = name
            with photo.open("rb") as file:
                archive.addfile(member, file)
    here.before = everything_but(here.root, "out")
    more = {"stylize": [], "cue-conflict": ["--cue-conflict"], "corrupt": ["--corruptions", "fog", "--severities", "1"]}
    name = "corrupt" if command == "corrupt" else "stylize"
    code = main([name, "set.tar", "--out", "out", "--size", "32", "--resize", "32", "--workers", "0", *more[command]])
    assert code == 0
    assert here.nothing_outside("out") and set(here.root.parent.iterdir()) == {here.root}
    made = [path for path in (here.root / "out").rglob("*.*") if path.suffix in (".png", ".JPEG")]
    members = [name for name in members if not is_hidden(name)]  # these are left out, and told
    assert len(made) == len(members)
    copy = {"stylize": "out", "corrupt": "out/fog/1", "cue-conflict": "cue-conflict:out"}[command]
    assert len(ipvit.load_dataset(copy)) == len(members)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_class_of_any_name_is_copied_below_the_output_folder_only(here, name):
    images = np.zeros((4, 3, 32, 32), np.uint8)
    ids = [f"0{name}", f"1{name}", f"{name}/2", f"{name}/3"]
    data = ipvit.MemoryDataset(images, [0, 1, 0, 1], [name, "other"], ids=ids)
    job = CorruptedCopy(source=data, view=View((32, 32)), corruptions=("fog",), severities=(1,))
    (here.root / "out").mkdir()
    folder = CopyFolder(job, here.root / "out")
    assert list(folder.fill(range(4), 0)) == [0, 0, 0, 0] and folder.finish()[1]
    assert here.nothing_outside("out") and set(here.root.parent.iterdir()) == {here.root}
    copy = ipvit.load_dataset("out/fog/1")
    second = " ".join(name.split()).encode("utf-8", "backslashreplace").decode().replace("\0", "\ufffd")
    found = {*(copy.aliases or copy.classes or ())}
    assert len(copy) == 4 and found == {second or path_component(name), "other"}


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.isprintable() or name.isascii()])
def test_a_run_with_models_data_and_images_of_any_name_stays_in_its_folder(here, name):
    model = ipvit.wrap(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), size=8, classes=("a", "b"), name=name or "x")
    data = ipvit.MemoryDataset(
        np.zeros((2, 3, 8, 8), np.uint8), [0, 1], ["a", "b"], ids=[name, f"{name}/1"], name=name or "x"
    )
    run = ipvit.run(ipvit.Accuracy(), models=model, data=data, out="out", workers=0, progress=False)
    run.report()
    assert here.nothing_outside("out") and set(here.root.parent.iterdir()) == {here.root}


@pytest.mark.parametrize("name", HOSTILE)
def test_records_that_name_another_experiment_stay_in_the_run_folder(here, name):
    """A part of somebody else's folder may say anything in its columns."""
    text = name.encode("utf-8", "replace").decode()  # a column holds no half characters
    identity = Identity(text, 1, "/../../w", "data", 0, "fp32", "labels")
    store = Store(here.root / "out")
    store.add(identity, text, ["i"], [(Condition(), {"correct": np.array([True])})])
    store.flush()
    store.write(store.records(text))
    assert here.nothing_outside("out") and set(here.root.parent.iterdir()) == {here.root}
    assert store.records(text).height == 1


def every_name_fits(folder: Path) -> bool:
    return all(is_one_component(path.name.removeprefix("."), 255) for path in folder.rglob("*"))


UNKIND = [name for name in HOSTILE if name.isprintable() or name == "a\u202eb"]


@pytest.mark.slow
def test_everything_a_run_makes_of_models_data_and_classes_of_any_name_stays_in_its_folder(here):
    """Features, probe heads, patches, pictures, figures named after networks, tables, the page."""
    models = []
    for number, name in enumerate(name for name in UNKIND if name.strip()):
        network = tiny_vit(number, depth=1, embed_dim=12)
        torch.nn.init.constant_(network.head.bias[:1], 100)  # a patch is trained on what the network gets right
        models.append(wrapped(network, name=name))
    images = coloured(16)
    pixels = np.stack([images.read(i).numpy() for i in range(16)])
    unkind = ipvit.MemoryDataset(pixels, images.labels, CLASSES, ids=HOSTILE[:16], name="../x")
    run = ipvit.run(
        [
            ipvit.Probe(train=photos(8, name="..\\y\u202e"), blocks=(0,), last=(), heads=("lbfgs",), tokens=("class",)),
            ipvit.Attack(attacks=("patch",), patch_areas=(0.2,), patch_images=12, patch_steps=1),
            ipvit.Attention(levels=(0,), blocks=(0,)),
        ],
        models=models[::4],
        data=unkind,
        out="out",
        workers=0,
        progress=False,
    )
    assert not run.manifest.failures, run.manifest.failures
    run.report()
    made = {path.relative_to("out").parts[0] for path in Path("out").rglob("*")}
    assert {"features", "probes", "patches", "examples", "tables", "figures", "report.html"} <= made
    assert here.nothing_outside("out") and set(here.root.parent.iterdir()) == {here.root}
    assert every_name_fits(here.root / "out")


def test_labels_of_a_study_name_files_below_the_run_folder_only(here, monkeypatch):
    write_images(here.root / "images", per_class=1)
    (here.root / "net.py").write_text(NETWORK)
    labels = [name for name in UNKIND if name.strip()]
    entries = [{"name": f"net.py:make?seed={number}", "label": label} for number, label in enumerate(labels)]
    study = {"models": entries, "data": "images", "experiments": ["accuracy"], "workers": 0}
    (here.root / "study.yaml").write_text(yaml.safe_dump(study, allow_unicode=True))
    here.before = everything_but(here.root, "out", "__pycache__")
    assert main(["run", "study.yaml", "--out", "out"]) == 0
    assert here.nothing_outside("out", "__pycache__") and set(here.root.parent.iterdir()) == {here.root}
    assert every_name_fits(here.root / "out")


SET = """
import numpy as np, ipvit
NAMES = {names!r}
def others():
    return make(100)
def make(first=0):
    ids = [f"{{name}}{{end}}" for name in NAMES for end in ("", "/x.png")]
    labels = [number for number in range(len(NAMES)) for _ in range(2)]
    images = (first + np.arange(len(ids), dtype=np.uint8))[:, None, None, None] * np.ones((1, 3, 32, 32), np.uint8)
    return ipvit.MemoryDataset(images, labels, NAMES, ids=[f"{{i}}{{name}}" for i, name in enumerate(ids)], name="../x")
"""


@pytest.mark.parametrize("arguments", [["stylize"], ["stylize", "--cue-conflict"], ["corrupt", "--corruptions", "fog"]])
def test_copies_of_a_set_with_classes_of_any_name_stay_below_the_output_folder(here, arguments):
    names = [name for name in dict.fromkeys(UNKIND) if name.strip()]
    (here.root / "own.py").write_text(SET.format(names=names))
    here.before = everything_but(here.root, "out", "__pycache__")
    more = ["--out", "out", "--size", "32", "--resize", "32", "--workers", "0", "--limit", "40"]
    assert main([arguments[0], "own.py:make", *arguments[1:], *more]) == 0
    assert here.nothing_outside("out", "__pycache__") and set(here.root.parent.iterdir()) == {here.root}
    assert every_name_fits(here.root / "out")


def test_a_training_on_classes_of_any_name_writes_below_its_folder_only(here):
    names = [name for name in dict.fromkeys(UNKIND) if name.strip()]
    (here.root / "own.py").write_text(SET.format(names=names))
    here.before = everything_but(here.root, "out", "__pycache__")
    data = {"train": "own.py:make", "val": "own.py:others", "size": 32}
    train(tiny_recipe(epochs=1, warmup_epochs=0, data=data), here.root / "out", device="cpu", progress=False)
    assert here.nothing_outside("out", "__pycache__") and set(here.root.parent.iterdir()) == {here.root}
    assert ipvit.load_model("out/best.safetensors").classes == tuple(names)
