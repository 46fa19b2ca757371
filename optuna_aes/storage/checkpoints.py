"""Checkpoints that survive a crash at any moment: written whole before they are named, the last few kept."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import optuna
import torch
from optuna.artifacts.exceptions import ArtifactNotFound
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from optuna_aes.errors import InputError, StorageError
from optuna_aes.storage.artifacts import DamagedArtifactError

if TYPE_CHECKING:
    from optuna.artifacts._protocol import ArtifactStore

INDEX_PREFIX = "aes:checkpoint:"
OWNER = (
    "aes:artifacts"  # system attribute of a study: what the names of its artifacts begin with, after ARTIFACT_PREFIX
)
ARTIFACT_PREFIX = "aes-"

_META = "aes"
_COPY_BYTES = 2**20
_logger = logging.getLogger(__name__)


class _Entry(TypedDict):
    artifact_id: str
    step: int
    sha256: str
    bytes: int


class Checkpoints:
    """The last checkpoints of one long step of work, such as a fit, in an artifact store.

    A checkpoint is one safetensors file with its meta data as JSON in the header. The list of those that exist is an
    attribute of the study, written only after the file is whole; files that it no longer names are removed after that.

    One worker writes at a time. If a second one does, believed dead but only slow, every checkpoint stays whole, and
    the list names the one written last and the furthest ones.

    Args:
        store: Where the files go.
        study: The study that names them.
        key: What the checkpoints are of; one key, one list.
        keep: How many are kept.
        note: Hears, in one line, of a checkpoint that cannot be used; the log by default.
    """

    def __init__(
        self,
        store: ArtifactStore,
        study: optuna.Study,
        *,
        key: str,
        keep: int = 2,
        note: Callable[[str], None] | None = None,
    ) -> None:
        if keep < 1:
            raise InputError(f"keep must be at least 1, and is {keep}")
        if not key or len(key) > 400:  # Optuna's attribute names end at 512 characters
            raise InputError(f"key must have 1 to 400 characters, and has {len(key)}")
        self._store = store
        self._study = study
        self._key = key
        self._name = INDEX_PREFIX + key
        self._keep = keep
        self._note = note or _logger.warning
        self._unusable: set[str] = set()

    def save(self, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any], *, step: int) -> None:
        """Write a checkpoint, and forget the oldest ones.

        Args:
            tensors: Name to tensor, on any device. Views and tensors that share memory are stored each on their own.
            meta: What JSON can hold; keys that are numbers come back as text.
            step: The step that is done, e.g. the epoch. A checkpoint of the same step is replaced.

        Raises:
            StorageError: If it cannot be written; the earlier checkpoints stay.
        """
        header = {_META: json.dumps(dict(meta))}
        artifact_id = f"{ARTIFACT_PREFIX}{self._owner()}-{uuid.uuid4().hex}"
        with tempfile.TemporaryDirectory(prefix="optuna-aes-") as folder:
            path = Path(folder) / "checkpoint.safetensors"
            try:
                save_file(_storable(tensors), path, metadata=header)
                digest, size = _digest(path)
                with path.open("rb") as body:
                    self._store.write(artifact_id, body)
            except BaseException as error:
                self._discard(artifact_id)
                if isinstance(error, (OSError, SafetensorError)):
                    raise StorageError(f"checkpoint {step} cannot be written: {error}") from error
                raise
        old = self._index()
        entries = self._furthest(entry for entry in old if entry["step"] != step)
        entries.append({"artifact_id": artifact_id, "step": step, "sha256": digest, "bytes": size})
        self._write_index(entries)
        named = {entry["artifact_id"] for entry in entries}
        for entry in old:
            if entry["artifact_id"] not in named:
                self._discard(entry["artifact_id"])

    def load(self, max_step: int | None = None) -> tuple[dict[str, torch.Tensor], dict[str, Any], int] | None:
        """Read the checkpoint of the highest step that is whole.

        Args:
            max_step: Leave out checkpoints of later steps.

        Returns:
            The tensors on the CPU, the meta data and the step, or None if no checkpoint is left to read.

        Raises:
            StorageError: If the store cannot be reached. One that is missing or damaged is skipped with a note.
        """
        while True:
            entries, skipped = self._index(), list[str]()
            # Not simply the one written last: a slow worker that was declared dead may have added an earlier step.
            for entry in sorted(entries, key=lambda entry: -entry["step"]):
                if max_step is None or entry["step"] <= max_step:
                    found = self._read_if_whole(entry, skipped)
                    if found is not None:
                        self._tell(skipped, f"going on from checkpoint {entry['step']}")
                        return *found, entry["step"]
            # Such a worker may also have replaced all of them since the list was read.
            if self._index() == entries:
                self._tell(skipped, "no earlier one is left")
                return None

    def _read_if_whole(
        self, entry: _Entry, skipped: list[str]
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        if entry["artifact_id"] in self._unusable:
            return None
        try:
            return self._read(entry)
        except (ArtifactNotFound, DamagedArtifactError, SafetensorError) as error:
            # Remembered, and not struck from the list: a folder that was not mounted in time may come back.
            self._unusable.add(entry["artifact_id"])
            skipped.append(f"{entry['step']} is {'missing' if isinstance(error, ArtifactNotFound) else 'damaged'}")
        except OSError as error:
            raise StorageError(f"checkpoint {entry['step']} of {self._key} cannot be read: {error}") from error
        return None

    def _tell(self, skipped: Sequence[str], what_now: str) -> None:
        if skipped:
            self._note(f"of the checkpoints of {self._key}, {' and '.join(skipped)}: {what_now}")

    def _furthest(self, entries: Iterable[_Entry]) -> list[_Entry]:
        """Those to keep beside a new one: of the highest steps, in order, and none that was found unusable."""
        usable = [entry for entry in entries if entry["artifact_id"] not in self._unusable]
        usable.sort(key=lambda entry: entry["step"])
        return usable[-(self._keep - 1) :] if self._keep > 1 else []

    def remove(self) -> None:
        """Remove all checkpoints of this key."""
        old = self._index()
        if old:
            self._write_index([])  # Optuna's attributes cannot be deleted
        for entry in old:
            self._discard(entry["artifact_id"])

    def _read(self, entry: _Entry) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        with tempfile.TemporaryDirectory(prefix="optuna-aes-") as folder:
            path = Path(folder) / "checkpoint.safetensors"
            digest = hashlib.sha256()
            with self._store.open_reader(entry["artifact_id"]) as reader, path.open("wb") as file:
                while data := reader.read(_COPY_BYTES):
                    digest.update(data)
                    file.write(data)
            if digest.hexdigest() != entry["sha256"]:
                raise DamagedArtifactError(f"artifact {entry['artifact_id']} does not match its checksum")
            with safe_open(path, framework="pt", device="cpu") as content:
                # Cloned, because the file they are mapped from is about to go.
                tensors = {name: content.get_tensor(name).clone() for name in content.keys()}  # noqa: SIM118 - no mapping
                meta = json.loads(content.metadata()[_META])
        return tensors, meta

    def _attrs(self) -> dict[str, Any]:
        return self._study._storage.get_study_system_attrs(self._study._study_id)

    def _index(self) -> list[_Entry]:
        entries: list[_Entry] = self._attrs().get(self._name, [])
        return entries

    def _write_index(self, entries: list[_Entry]) -> None:
        # A system attribute: a user attribute would be shown in every table of the dashboard.
        value: Any = entries
        self._study._storage.set_study_system_attr(self._study._study_id, self._name, value)

    def _owner(self) -> str:
        """What tells the study's artifacts from those of other databases in the same folder or bucket."""
        owner: str | None = self._attrs().get(OWNER)
        if owner is None:
            self._study._storage.set_study_system_attr(self._study._study_id, OWNER, uuid.uuid4().hex[:16])
            owner = str(self._attrs()[OWNER])  # two workers may write one at the same time; one of them stays
        return owner

    def _discard(self, artifact_id: str) -> None:
        # Space that is not given back harms nobody; a fit that stops for it does.
        with suppress(ArtifactNotFound, StorageError, OSError):
            self._store.remove(artifact_id)


def _storable(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    seen: set[int] = set()
    plain = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().to("cpu").contiguous()
        # safetensors refuses two tensors in one piece of memory.
        if tensor.untyped_storage().data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        plain[name] = tensor
    return plain


def _digest(path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while data := file.read(_COPY_BYTES):
            digest.update(data)
            size += len(data)
    return digest.hexdigest(), size
