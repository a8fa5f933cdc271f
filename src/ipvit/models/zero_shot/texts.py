"""What the classes of a zero-shot model are told by: prompts, and the words for each class."""

from __future__ import annotations

import collections
import dataclasses
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipvit.core.files import user_path
from ipvit.core.text.text_files import read_text
from ipvit.core.text.words import counted
from ipvit.errors import InputError, shown
from ipvit.models.label_spaces import imagenet_classes

if TYPE_CHECKING:
    from ipvit.data.dataset import Items

PLACE = "{}"
"""Where the words for a class stand in a prompt."""

DEFAULT_PROMPT = "a photo of a {}"

OPENAI80 = "openai80"
"""The 80 prompts for ImageNet of Radford et al. (2021), "Learning Transferable Visual Models From Natural Language
Supervision": what most published zero-shot accuracies are measured with."""

IMAGENET = "imagenet"
"""The 1,000 class names for ImageNet of the same authors, for its outputs by WordNet id."""

NEEDS_OPEN_CLIP = "the package open_clip: pip install 'ipvit[open_clip]'"

_WORDNET = re.compile(r"n\d{8}")

_IDS = re.compile(rf"{_WORDNET.pattern}|\d+")
"""Names of class folders that are no words: WordNet ids and numbers."""


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Sentences round the words for a class; a class is told by the mean of them all.

    Attributes:
        templates: each holds :data:`PLACE` once.
        told: what they are called in tables and captions.
        given: what was asked for, as a study file has it; None for the default.
    """

    templates: tuple[str, ...] = (DEFAULT_PROMPT,)
    told: str = f"prompt {DEFAULT_PROMPT!r}"
    given: str | tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class ClassNames:
    """The outputs of a zero-shot model.

    Attributes:
        outputs: what the outputs are called; classes of data are found by these.
        words: for each output the words that stand in the prompts.
        told: where they are from, in words.
        given: what was asked for, as a study file has it; None for the classes of the data.
    """

    outputs: tuple[str, ...]
    words: tuple[str, ...]
    told: str
    given: str | tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Texts:
    """All that the classes of a zero-shot model are told by.

    Attributes:
        prompts: the sentences.
        names: the outputs and their words.
        prepared: how the model's tokenizer prepares texts, in words; empty until it has read them.
        digest: of all that makes a classifier of them, the text tower included; likewise.
    """

    prompts: Prompts
    names: ClassNames
    prepared: str = ""
    digest: str = ""

    @property
    def in_words(self) -> str:
        """How the model answers, for captions."""
        told = self.prompts.told
        one = " (published zero-shot accuracies are mostly those of openai80)" if told == Prompts.told else ""
        same = ", ".join(self.alike)
        alike = f"; {same} are the words of several outputs, of which only the first is ever answered" if same else ""
        return f"zero-shot, {counted(len(self.names.outputs), 'class name')} of {self.names.told}, {told}{one}{alike}"

    def of_class(self, number: int) -> list[str]:
        """Return the texts of one class, one for each prompt."""
        return [template.replace(PLACE, self.names.words[number]) for template in self.prompts.templates]

    @property
    def alike(self) -> list[str]:
        """Words that several outputs have: a model can never tell these outputs apart."""
        return [words for words, number in collections.Counter(self.names.words).items() if number > 1]

    @property
    def stated(self) -> tuple[tuple[str, ...], ...]:
        """What was given, as the digest knows it."""
        return self.prompts.templates, self.names.outputs, self.names.words


def prompts_of(given: str | Sequence[str] | Prompts | None) -> Prompts:
    """Return prompts as a user gives them.

    Args:
        given: a sentence with ``{}`` in it, ``openai80``, a file with one such sentence a line, or several sentences.

    Raises:
        InputError: it is none of these, or a sentence does not hold ``{}`` exactly once.
    """
    if isinstance(given, Prompts):
        return given
    if given is None:
        return Prompts()
    if not isinstance(given, str):
        templates = tuple(given)
        return Prompts(_checked(templates, "prompts"), _count(templates), templates)
    if given == OPENAI80:
        metadata = _open_clip(f"--prompts {OPENAI80}")
        templates = tuple(template(PLACE) for template in metadata.OPENAI_IMAGENET_TEMPLATES)
        return Prompts(_checked(templates, OPENAI80), f"the {len(templates)} prompts {OPENAI80}", given)
    if "{" in given:
        return Prompts(_checked((given,), "--prompts"), f"prompt {given!r}", given)
    path = user_path(given)
    if not path.is_file():
        raise InputError(
            f"prompts {shown(given)}: there is no such file, and a prompt holds {PLACE} where the class name stands, "
            f"as in {DEFAULT_PROMPT!r}; {OPENAI80} names the 80 prompts for ImageNet"
        )
    lines = tuple(line.strip() for line in _lines(path))
    return Prompts(_checked(lines, str(path)), f"{_count(lines)} of {path.name}", given)


def names_of(given: str | Sequence[str] | ClassNames) -> ClassNames:
    """Return class names as a user gives them.

    Args:
        given: ``imagenet``; a file with one class a line, as ``WORDS`` or ``OUTPUT<TAB>WORDS``; or the words
            themselves.

    Raises:
        InputError: there is no such file, or it names no class, or one twice.
    """
    if isinstance(given, ClassNames):
        return given
    if not isinstance(given, str):
        words = tuple(str(name) for name in given)
        return _unique(ClassNames(words, words, "a list", words), "class names")
    if given == IMAGENET:
        words = tuple(_open_clip(f"--class-names {IMAGENET}").IMAGENET_CLASSNAMES)
        return ClassNames(imagenet_classes(), words, "ImageNet", given)
    path = user_path(given)
    if not path.is_file():
        raise InputError(
            f"class names {shown(given)}: there is no such file; give a file with one class a line, as WORDS or "
            f"OUTPUT<TAB>WORDS, or {IMAGENET}"
        )
    parts = [[part.strip() for part in line.split("\t")] for line in _lines(path)]
    if wrong := next((number for number, part in enumerate(parts, 1) if len(part) > 2 or not all(part)), 0):
        raise InputError(f"{str(path)!r}, class {wrong}: a line is WORDS, or OUTPUT<TAB>WORDS")
    outputs, words = tuple(part[0] for part in parts), tuple(part[-1] for part in parts)
    if synset := next((text for text in words if _WORDNET.fullmatch(text)), ""):
        raise InputError(
            f"{str(path)!r}: {synset} is a WordNet id, which says nothing to a text encoder; a line is "
            f"OUTPUT<TAB>WORDS, for example {synset}<TAB>tabby cat"
        )
    return _unique(ClassNames(outputs, words, path.name, given), str(path))


def names_of_data(data: Items) -> ClassNames | None:
    """Return the classes of some data as class names; None where it has none.

    Folders of ImageNet's WordNet ids mean all of its 1,000 classes, as those of a classifier of ImageNet. Of a second
    name in ``classes.txt`` that is words, these are taken.

    Raises:
        InputError: the folders are named by ids or numbers, which say nothing to a text encoder.
    """
    if data.classes is None:
        return None
    second = data.aliases or data.classes
    known = frozenset(imagenet_classes())
    if all(name in known for name in data.classes):
        return dataclasses.replace(names_of(IMAGENET), given=None)
    outputs: list[str] = []
    words: list[str] = []
    for name, alias in zip(data.classes, second, strict=True):
        useful = not alias.isdecimal() and not re.search(r"[,()]", alias)
        outputs.append(alias if useful else name)
        said = next((text for text in (name, alias) if not _IDS.fullmatch(text)), "")
        if not said:
            raise InputError(
                f"the class {name!r} of {data.name} is an id, which says nothing to a text encoder: give --class-names "
                f"FILE with lines OUTPUT<TAB>WORDS, for example {name}<TAB>tabby cat, or {IMAGENET}"
            )
        words.append(" ".join(said.replace("_", " ").split()))
    return _unique(ClassNames(tuple(outputs), tuple(words), f"the classes of {data.name}"), data.name)


def _unique(names: ClassNames, where: str) -> ClassNames:
    if not names.outputs:
        raise InputError(f"{where}: there is no class name")
    for what in (names.outputs, names.words):
        if len(set(what)) < len(what):
            twice = max(what, key=what.count)
            raise InputError(f"{where}: the class name {twice!r} is there twice; answers could not be told apart")
    return names


def _checked(templates: tuple[str, ...], where: str) -> tuple[str, ...]:
    for template in templates:
        if template.count(PLACE) != 1 or re.search(r"[{}]", template.replace(PLACE, "")):
            raise InputError(
                f"{where}: a prompt holds {PLACE} once, where the class name stands, as in {DEFAULT_PROMPT!r}, not "
                f"{shown(template)}"
            )
    if not templates:
        raise InputError(f"{where}: there is no prompt")
    if len(set(templates)) < len(templates):
        raise InputError(f"{where}: the prompt {max(templates, key=templates.count)!r} is there twice")
    return templates


def _count(templates: Sequence[str]) -> str:
    return f"prompt {templates[0]!r}" if len(templates) == 1 else counted(len(templates), "prompt")


def _lines(path: Path) -> list[str]:
    """Return the lines of a file that hold something, as they are: a tab at the end is a part that is missing."""
    return [line for line in read_text(path).split("\n") if line.strip()]


def _open_clip(what: str) -> Any:
    if importlib.util.find_spec("open_clip") is None:
        raise InputError(f"{what} needs {NEEDS_OPEN_CLIP}")
    from open_clip import zero_shot_metadata

    return zero_shot_metadata
