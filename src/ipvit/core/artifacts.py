"""What a run makes beside its records, keeps, and finds again: features, patches, probes, pictures.

An artifact is identified by its key, a digest of all that determines it, and lies under ``FOLDER/NAME-KEY.*``. Its
metadata, a JSON object beside the content or in its header, states the format, the key, the SHA-256 of the content,
whatever else describes it, and a digest of the metadata itself. Files are written whole or not at all, the metadata
last: what has metadata is complete. Reading verifies the digests. What is damaged, or something else, raises an error
of one line; the caller passes it on, or makes the artifact again and notes that line.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from ipvit.core.digests import digest_of, digest_of_json
from ipvit.core.files import write_atomic
from ipvit.core.text.validation_messages import explain
from ipvit.errors import InputError, shown

CARD_DIGEST = "card_sha256"
"""Where metadata states the digest of the rest of it; metadata of earlier versions does not."""


class ArtifactError(InputError):
    """An artifact is damaged, or is something else."""


class Metadata(BaseModel):
    """What an artifact says of itself; each kind of artifact adds its own fields.

    Attributes:
        key: digest of all that determines the artifact; empty where no run asked for it, and in metadata of earlier
            versions.
    """

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    key: str = ""


AnyMetadata = TypeVar("AnyMetadata", bound=Metadata)
Artifact = TypeVar("Artifact")


@dataclasses.dataclass(frozen=True)
class Kind(Generic[AnyMetadata]):
    """A kind of artifact: how its metadata is written and read, and what messages call it.

    Attributes:
        name: of the artifact, for example ``patch``.
        metadata: the model of its metadata.
        content: what lies beside the metadata, for example ``picture``.
        place: where the metadata stands, for example ``.json file``.
        hint: what the files are, or who writes them; for messages about files that are missing.
        format: of the metadata that is written and read.
        unstated_format: of metadata that states none.
        most_bytes: size of the largest metadata that is read.
    """

    name: str
    metadata: type[AnyMetadata]
    content: str
    place: str
    hint: str
    format: int = 1
    unstated_format: int | None = None
    most_bytes: int = 1 << 20

    def dumps(self, metadata: AnyMetadata, *, indent: int | None = 1) -> str:
        """Return metadata as JSON that includes a digest of itself."""
        empty = {"key"} if not metadata.key else None
        content = {"format": self.format, **metadata.model_dump(mode="json", by_alias=True, exclude=empty)}
        return json.dumps(content | {CARD_DIGEST: digest_of_json(content)}, ensure_ascii=False, indent=indent)

    def loads(self, text: str | bytes, path: Path) -> AnyMetadata:
        """Return the metadata that a JSON text holds.

        Args:
            text: of the metadata.
            path: the file that it comes from, for messages.

        Raises:
            ArtifactError: it is no such metadata, is of another format, or was changed after it was written.
        """
        try:
            content: object = json.loads(text)
            about = dict(cast("dict[str, Any]", content)) if isinstance(content, dict) else {}
            stated = about.pop(CARD_DIGEST, None)
            changed = stated is not None and stated != digest_of_json(about)
        except (ValueError, RecursionError):
            raise self._no_metadata(path, "it is not JSON") from None
        if not isinstance(content, dict):
            raise self._no_metadata(path, "it is not a JSON object")
        found = about.pop("format", self.unstated_format)
        if found != self.format:
            raise ArtifactError(
                f"{str(path)!r} is a {self.name} file of format {shown(found)}; this version reads {self.format}"
            )
        try:
            metadata = self.metadata.model_validate(about)
        except ValidationError as error:
            raise self._no_metadata(path, explain(error, self.metadata)) from None
        if changed:
            raise self._no_metadata(path, "it was changed after it was written")
        return metadata

    def write(self, path: Path, metadata: AnyMetadata) -> None:
        """Write metadata as a file, once all that it describes is on the disk."""
        write_atomic(path, self.dumps(metadata).encode())

    def read(self, path: Path) -> AnyMetadata:
        """Return the metadata that a file holds.

        Raises:
            ArtifactError: the file cannot be read; see also :meth:`loads`.
        """
        return self.loads(self.read_bytes(path, self.most_bytes), path)

    def read_bytes(self, path: Path, most: int) -> bytes:
        """Return the bytes of a file of an artifact.

        Raises:
            ArtifactError: the file cannot be read, or has more bytes than ``most``.
        """
        try:
            if path.stat().st_size > most:
                raise ArtifactError(f"the {self.name} file {str(path)!r} is larger than a {self.name} can be")
            return path.read_bytes()
        except OSError as error:
            raise ArtifactError(
                f"cannot read the {self.name} file {str(path)!r}: {error.strerror}; {self.hint}"
            ) from None

    def verify(self, content: bytes, sha256: str, path: Path) -> None:
        """Compare an artifact's content with the digest in its metadata.

        Raises:
            ArtifactError: they do not belong together.
        """
        if digest_of(content) != sha256:
            raise ArtifactError(
                f"the {self.name} {str(path)!r} is not the {self.content} that its {self.place} describes"
            )

    def another(self, path: Path) -> ArtifactError:
        """Return the error for an artifact that is whole and not the one that its file name promises."""
        return ArtifactError(f"{str(path)!r} describes another {self.name} than its name says")

    def _no_metadata(self, path: Path, reason: str) -> ArtifactError:
        return ArtifactError(f"{str(path)!r} does not describe a {self.name}: {reason}")


def artifact_path(folder: Path, name: str, key: str, suffix: str = "") -> Path:
    """Return where an artifact lies, ``FOLDER/NAME-KEY`` and the suffix.

    >>> artifact_path(Path("probes"), "5-class", "0a1b", ".safetensors").as_posix()
    'probes/5-class-0a1b.safetensors'
    """
    return folder / f"{name}-{key}{suffix}"


def first_whole(paths: Iterable[Path], read: Callable[[Path], Artifact]) -> tuple[Artifact | None, str]:
    """Return the first artifact that can be read.

    Args:
        paths: where it may lie; files that do not exist count for nothing.
        read: reads one, or raises an :class:`~ipvit.errors.InputError`.

    Returns:
        The artifact, or None where there is none; and then what is wrong with the last of the damaged ones, or an
        empty string where there are none either.
    """
    reason = ""
    for path in paths:
        if path.is_file():
            try:
                return read(path), ""
            except InputError as error:
                reason = str(error)
    return None, reason


def made_again(damage: str, done: str) -> str:
    """Return the note that a run leaves when it replaced a damaged artifact.

    >>> made_again("'a.png' is not a PNG picture", "it was trained")
    "'a.png' is not a PNG picture; it was trained again"
    """
    return f"{damage}; {done} again"
