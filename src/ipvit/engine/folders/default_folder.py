"""Where a run goes that was given no folder: a default folder belongs to one data set and one protocol.

More models, levels and experiments go on in it. Other data, labels, answers, seed, precision, backend or limit get a
folder beside it, whose name says what is other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ipvit.core.digests import digest_of_json
from ipvit.core.files import LONGEST, path_component
from ipvit.core.manifest import Manifest
from ipvit.core.run_config import RunConfig
from ipvit.data.dataset import Dataset, known_fingerprints
from ipvit.engine.folders.run_folder import SHARDS
from ipvit.engine.manifest import MANIFEST, chosen_answers, labelling, read_manifest


def default_folder(base: Path, data: Dataset, config: RunConfig) -> tuple[Path, str]:
    """Return the folder of a run that was given none.

    Args:
        base: where it goes unless that belongs to something else.
        data: the images.
        config: the options of the run.

    Returns:
        The folder, and a line that names both where it is not ``base``, else an empty one.
    """
    other = _other(base, data, config)
    if not other:
        return base, ""
    named = base.with_name(path_component("-".join([base.name, *other.values()]), most=LONGEST))
    exact = named.with_name(path_component(f"{named.name}-{_digest(data, config)}", most=LONGEST))
    places = (named, exact)
    there = [place for place in places if _manifests(place) and not _other(place, data, config)]
    free = [place for place in places if not _manifests(place)]
    folder = (there or free or [exact])[0]
    return folder, f"{base} belongs to {', '.join(other)}; this run goes into {folder}"


def default_folder_of_runs(base: Path, config: RunConfig) -> tuple[Path, str]:
    """Return the folder of several runs on several data, such as a reproduction, that was given none.

    Only the options count: each run says itself which data it is on.

    Args:
        base: a run folder, or the folder of run folders.
        config: the options of all runs.

    Returns:
        As :func:`default_folder`.
    """
    other: dict[str, str] = {}
    for place in [base, *sorted(path.parent for path in base.glob(f"*/{MANIFEST}"))]:
        for manifest in _manifests(place):
            other |= dict(_other_options(manifest, config))
    if not other:
        return base, ""
    folder = base.with_name(path_component("-".join([base.name, *other.values()]), most=LONGEST))
    return folder, f"{base} belongs to {', '.join(other)}; this run goes into {folder}"


def _other(folder: Path, data: Dataset, config: RunConfig) -> dict[str, str]:
    """Return what of a run is other than in a folder: how it is there, in words, and what the run is called for it."""
    found: dict[str, str] = {}
    for manifest in _manifests(folder):
        found |= dict(_differences(manifest, data, config))
    return found


def _manifests(folder: Path) -> list[Manifest]:
    """Return the manifest of a run folder, or those of its shards where these were not joined yet."""
    whole = read_manifest(folder)
    if whole is not None:
        return [whole]
    shards = sorted(path.parent for path in folder.glob(f"{SHARDS}/*/{MANIFEST}"))
    return [manifest for shard in shards if (manifest := read_manifest(shard)) is not None]


def _differences(manifest: Manifest, data: Dataset, config: RunConfig) -> Iterator[tuple[str, str]]:
    there = manifest.data
    known = known_fingerprints(data)
    if there.fingerprint not in known and manifest.fingerprints.get(there.fingerprint) not in known:
        same = there.name == data.name
        yield (f"other files of {there.name}" if same else there.name), _data_word(data.name)
    elif there.labelling not in (None, labelling(data)):
        yield f"other class names of {there.name}", f"classes-{labelling(data)[:6]}"
    if (answers := _answers(manifest)) != (wanted := chosen_answers(data, config)):
        yield f"--answers {answers}", f"answers-{wanted}"
    yield from _other_options(manifest, config)


def _answers(manifest: Manifest) -> str:
    """Return among which answers the models of a folder chose; an earlier version states only where that counted."""
    of_data = any(subject.answers == "data" for subject in manifest.subjects.values())
    return manifest.answer_space or ("data" if of_data else "all")


def _other_options(manifest: Manifest, config: RunConfig) -> Iterator[tuple[str, str]]:
    if manifest.limit != config.limit:
        limit = "all images" if manifest.limit is None else f"--limit {manifest.limit}"
        yield limit, "all-images" if config.limit is None else f"limit-{config.limit}"
    if manifest.seed != config.seed:
        yield f"--seed {manifest.seed}", f"seed-{config.seed}"
    if manifest.precision != config.precision:
        yield f"--precision {manifest.precision}", config.precision
    if manifest.backend != config.backend:
        yield f"--backend {manifest.backend}", config.backend


def _data_word(name: str) -> str:
    """Return the name of data as a part of a folder's name: of a path the last two parts.

    >>> _data_word("demo:trifeature/texture-random"), _data_word("/data/imagenet/val")
    ('trifeature-texture-random', 'imagenet-val')
    """
    last = [part for part in re.split(r"[/\\\\]+", name.rpartition(":")[2]) if part][-2:]
    return re.sub(r"[^A-Za-z0-9._]+", "-", "-".join(last)).strip("-._")[:60] or "data"


def _digest(data: Dataset, config: RunConfig) -> str:
    about = [data.fingerprint, labelling(data), chosen_answers(data, config)]
    return digest_of_json([*about, config.limit, config.seed, config.precision, config.backend], 8)
