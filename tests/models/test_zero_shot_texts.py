"""Texts of zero-shot models: prompts, class names, how they make a class, and what is kept of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ipvit
import ipvit.testing
from helpers.zero_shot import ALL, PROMPTS, WORDS, loaded, pictures, place
from ipvit.errors import InputError
from ipvit.models.loading import load_models
from ipvit.models.zero_shot.texts import OPENAI80, names_of, names_of_data, prompts_of

pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("cache")


def test_a_class_is_told_by_the_mean_of_unit_vectors_and_not_by_the_mean_of_answers(folders: dict[str, str]) -> None:
    """How several prompts are put together is worth points of accuracy: each text counts alike, then the mean."""
    model = loaded(folders["transformers CLIP"], prompts=PROMPTS, class_names=["tabby cat", "school bus"])
    own = transformers.AutoModel.from_pretrained(place(folders["transformers CLIP"])).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(place(folders["transformers CLIP"]))
    image = model.normalize(pictures(1))
    with torch.no_grad():
        directions = []
        for words in ("tabby cat", "school bus"):
            units = []
            for prompt in PROMPTS:
                tokens = tokenizer(prompt.replace("{}", words), return_tensors="pt")
                states = own.text_model(**tokens).pooler_output
                vector = own.text_projection(states)[0]
                units.append(vector / vector.norm())
            mean = torch.stack(units).mean(0)
            directions.append(mean / mean.norm())
        seen = own.visual_projection(own.vision_model(pixel_values=image).pooler_output)[0]
        expected = own.logit_scale.exp() * torch.stack(directions) @ (seen / seen.norm())
    torch.testing.assert_close(model(pictures(1))[0], expected, rtol=1e-4, atol=1e-5)
    single = [loaded(folders[ALL[2]], prompts=one, class_names=["tabby cat", "school bus"]) for one in PROMPTS]
    assert not torch.allclose(torch.stack([one(pictures(1))[0] for one in single]).mean(0), expected, rtol=1e-5)


def test_one_prompt_says_that_published_numbers_are_those_of_eighty(folders: dict[str, str]) -> None:
    one = loaded(folders["open_clip CLIP"], class_names=list(WORDS))
    all_of_them = loaded(folders["open_clip CLIP"], prompts=OPENAI80, class_names=list(WORDS))
    assert "published zero-shot accuracies are mostly those of openai80" in one.texts.in_words
    assert all_of_them.texts.in_words == "zero-shot, 5 class names of a list, the 80 prompts openai80"
    assert len(all_of_them.texts.prompts.templates) == 80
    assert one.digest != all_of_them.digest


@pytest.mark.parametrize("kind", ALL)
def test_a_text_that_is_longer_than_the_context_is_refused_and_not_cut(folders: dict[str, str], kind: str) -> None:
    long = "very " * 90 + "good dog"
    with pytest.raises(InputError, match=r"takes texts of (77|64) tokens.*its end would be cut off"):
        loaded(folders[kind], class_names=["cat", long])


def test_a_text_that_just_fits_is_taken(folders: dict[str, str]) -> None:
    fits = "dog " * 71 + "dog"  # "a photo of a" has four tokens, start and end are two
    with pytest.raises(InputError, match="has 78"):
        loaded(folders["open_clip CLIP"], class_names=["cat", f"{fits}"])
    assert loaded(folders["open_clip CLIP"], class_names=["cat", "dog " * 70 + "dog"]).n_outputs == 2


def test_prompts_and_names_are_part_of_the_digest_and_the_tower_is_not(folders: dict[str, str]) -> None:
    given = [(None, ["cat", "dog"]), ("the {}", ["cat", "dog"]), (None, ["cat", "fox"]), (None, ["dog", "cat"])]
    models = [loaded(folders[ALL[0]], prompts=prompts, class_names=names) for prompts, names in given]
    assert len({model.digest for model in models}) == 4
    assert {model.tower_digest for model in models} == {loaded(folders[ALL[0]]).digest}
    again = loaded(folders[ALL[0]], class_names=["cat", "dog"])
    assert again.digest == models[0].digest


def test_texts_are_encoded_once_and_a_damaged_file_again(folders: dict[str, str], cache: Path) -> None:
    first = loaded(folders[ALL[0]], class_names=["cat", "dog"])
    (kept,) = cache.iterdir()
    from ipvit.models.zero_shot import network as zero_shot

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zero_shot, "_encoded", lambda *_: pytest.fail("encoded again"))
        again = loaded(folders[ALL[0]], class_names=["cat", "dog"])
    assert torch.equal(again(pictures()), first(pictures()))
    content = bytearray(kept.read_bytes())
    content[-3] ^= 255
    kept.write_bytes(content)
    mended = loaded(folders[ALL[0]], class_names=["cat", "dog"])
    assert torch.equal(mended(pictures()), first(pictures()))


def test_several_sets_of_prompts_share_one_tower(folders: dict[str, str]) -> None:
    models: Any = load_models(folders[ALL[0]], label="clip", prompts=["the {}", PROMPTS], class_names=["cat", "dog"])
    one, two = models
    assert (one.name, two.name) == ("clip [the {}]", "clip [3 prompts]")
    assert one.backbone.trunk is two.backbone.trunk


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ("a photo", r"there is no such file, and a prompt holds \{\}"),
        ("a {} and a {}", r"holds \{\} once"),
        ("a photo of a {c}", r"holds \{\} once"),
        ([], "there is no prompt"),
        (["a {}", "a {}"], "there twice"),
    ],
)
def test_prompts_that_are_none_are_refused(prompts: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        prompts_of(prompts)


def test_prompts_and_names_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a photo of a {}.\n\nart of the {}\n")
    (tmp_path / "names.txt").write_text("n02123045\ttabby cat\nn02084071\tdog\n")
    found = prompts_of(str(tmp_path / "prompts.txt"))
    assert found.templates == ("a photo of a {}.", "art of the {}")
    assert found.told == "2 prompts of prompts.txt"
    names = names_of(str(tmp_path / "names.txt"))
    assert (names.outputs, names.words) == (("n02123045", "n02084071"), ("tabby cat", "dog"))
    (tmp_path / "wrong.txt").write_text("a\tb\tc\n")
    with pytest.raises(InputError, match=r"wrong\.txt', class 1: a line is WORDS, or OUTPUT<TAB>WORDS"):
        names_of(str(tmp_path / "wrong.txt"))
    with pytest.raises(InputError, match="'dog' is there twice"):
        names_of(["dog", "dog"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("n02123045\ttabby cat\nn02084071\t\n", "class 2: a line is WORDS, or OUTPUT<TAB>WORDS"),
        ("n02123045\nn02084071\n", "n02123045 is a WordNet id, which says nothing to a text encoder"),
    ],
)
def test_a_file_of_ids_without_words_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(InputError, match=said):
        names_of(str(tmp_path / "names.txt"))


@pytest.mark.parametrize(
    ("kind", "names"),
    [("open_clip CLIP", ["Crane", "owl", "crane"]), ("transformers SigLIP", ["St. Bernard", "owl", "st bernard"])],
)
def test_class_names_that_are_one_to_the_tokenizer_are_refused(
    folders: dict[str, str], kind: str, names: list[str]
) -> None:
    with pytest.raises(InputError, match=f"{names[0]!r} and {names[2]!r} are one to the tokenizer"):
        loaded(folders[kind], class_names=names)


def test_imagenets_names_are_for_its_synsets_and_two_pairs_of_them_are_alike() -> None:
    names = names_of("imagenet")
    assert len(names.outputs) == 1000
    assert dict(zip(names.outputs, names.words, strict=True))["n02123045"] == "tabby cat"
    texts = ipvit.models.zero_shot.texts.Texts(prompts_of(OPENAI80), names)
    assert texts.alike == ["missile", "sunglasses"]
    assert "missile, sunglasses are the words of several outputs" in texts.in_words


def data_of(classes: list[str], aliases: list[str] | None = None) -> Any:
    images = np.zeros((len(classes), 3, 4, 4), dtype=np.uint8)
    made = ipvit.MemoryDataset(images, np.arange(len(classes)), classes, name="set")
    made.aliases = None if aliases is None else tuple(aliases)
    return made


def named(data: Any) -> Any:
    return names_of_data(data)


def test_the_classes_of_the_data_are_class_names_unless_they_are_ids() -> None:
    names = named(data_of(["great_white_shark", "tabby cat"]))
    assert names.words == ("great white shark", "tabby cat")
    assert names.outputs == ("great_white_shark", "tabby cat")
    assert named(data_of(["cat", "dog"], ["n02123045", "n02084071"])).outputs == ("n02123045", "n02084071")
    assert named(data_of(["d1", "d2"], ["cat", "dog"])).outputs == ("cat", "dog")
    for ids in (["0", "1"], ["n02084071", "n09999999"]):
        with pytest.raises(InputError, match=r"is an id, which says nothing.*--class-names FILE"):
            named(data_of(ids))
    assert len(named(data_of(["n02123045", "n01440764"])).outputs) == 1000


@pytest.mark.parametrize("kind", ["open_clip CLIP", "transformers CLIP"])
def test_texts_that_were_encoded_by_another_activation_are_encoded_anew(
    folders: dict[str, str], tmp_path: Path, kind: str
) -> None:
    """Same weights, same texts: what is kept of one text tower is no answer of the other."""
    source = Path(place(folders[kind]))
    other = tmp_path / "quick"
    shutil.copytree(source, other)
    if kind == "open_clip CLIP":
        config = json.loads((other / "open_clip_config.json").read_text())
        config["model_cfg"]["quick_gelu"] = True
        (other / "open_clip_config.json").write_text(json.dumps(config))
    else:
        config = json.loads((other / "config.json").read_text())
        assert config["text_config"]["hidden_act"] == "quick_gelu"
        config["text_config"]["hidden_act"] = "gelu"
        (other / "config.json").write_text(json.dumps(config))
    name = f"{kind.split()[0]}:{other}"
    first = loaded(folders[kind], class_names=["cat", "dog"])
    after_it = loaded(name, class_names=["cat", "dog"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
        alone = loaded(name, class_names=["cat", "dog"])
    torch.testing.assert_close(after_it.backbone.weight, alone.backbone.weight)
    assert not torch.allclose(first.backbone.weight, alone.backbone.weight, atol=1e-6)
    assert first.digest != after_it.digest
