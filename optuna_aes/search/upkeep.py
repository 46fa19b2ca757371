"""Care of a database that holds searches: is it whole, and which artifacts does nobody need any more."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.study._frozen import FrozenStudy

from optuna_aes.errors import StorageError
from optuna_aes.search.settings import SETTINGS
from optuna_aes.search.studies import FIT, RETRAIN
from optuna_aes.storage import WorkQueue, open_artifact_store
from optuna_aes.storage.checkpoints import ARTIFACT_PREFIX, INDEX_PREFIX, OWNER

OPTUNAS_PREFIX = "artifacts:"  # as optuna.artifacts.upload_artifact names what it uploads

_READ_BYTES = 2**20
_SILENT = 300.0  # seconds without a sign of life after which a trial without a worker's name is nobody's


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what it is, and what is wrong with it, or None."""

    what: str
    trouble: str | None = None


@dataclass(frozen=True)
class Cleared:
    """What a clean-up found in one place.

    Args:
        place: The database, a folder or a bucket.
        kept: Artifacts that a study names.
        young: Artifacts that nobody names, which may be on their way to a name.
        foreign: Artifacts of other databases, or of studies that were deleted; those of a place of its own are not told apart.
        removed: Artifacts that nobody names, and which are gone now, or would be.
        bytes: Of those removed.
    """

    place: str
    kept: int
    young: int
    foreign: int
    removed: int
    bytes: int


def check(storage: RDBStorage) -> Iterator[Finding]:
    """Looks through a database whose schema is right.

    Yields:
        For every study and every place of artifacts what is found.

    Raises:
        StorageError: If the database cannot be read.
    """
    studies = storage.get_all_studies()
    yield Finding(f"schema {storage.get_current_version()}, {len(studies)} studies")
    for study in studies:
        yield _numbers(storage, study)
        yield _running(storage, study)
        yield from _artifacts(storage, study, studies)


def _numbers(storage: RDBStorage, study: FrozenStudy) -> Finding:
    trial = models.TrialModel.__table__.c
    query = sa.select(sa.func.count(), sa.func.count(sa.distinct(trial.number)), sa.func.max(trial.number))
    with storage.engine.connect() as connection:
        trials, numbers, last = connection.execute(query.where(trial.study_id == study._study_id)).one()
    what = f"study {study.study_name}: {trials} trials"
    if numbers < trials:
        return Finding(what, f"{trials - numbers} share their number with another")
    return Finding(what, None if trials == (last or 0) + (trials > 0) else f"numbers go up to {last}: some are missing")


def _running(storage: RDBStorage, study: FrozenStudy) -> Finding:
    queue = WorkQueue(optuna.load_study(storage=storage, study_name=study.study_name))
    running = queue.backend.running()
    orphans = [t.number for t in running if queue.is_dead(t) or (t.mark is None and (t.silent or _SILENT) >= _SILENT)]
    what = f"study {study.study_name}: {len(running)} running"
    if not orphans:
        return Finding(what)
    told = ", ".join(map(str, orphans[:5])) + (", …" if len(orphans) > 5 else "")
    return Finding(what, f"nobody works on trial {told}: a worker of this search gives them back")


def _artifacts(storage: RDBStorage, study: FrozenStudy, studies: list[FrozenStudy]) -> Iterator[Finding]:
    entries = {key: value for key, value in study.system_attrs.items() if key.startswith(INDEX_PREFIX) and value}
    if not entries:
        return
    what = f"study {study.study_name}: {sum(map(len, entries.values()))} artifacts"
    try:
        store = open_artifact_store(_spec(study, studies), storage)
    except StorageError as error:
        yield Finding(what, str(error))
        return
    troubles = []
    for key, listed in entries.items():
        for entry in listed:
            trouble = _trouble(store, entry)
            if trouble is not None:
                troubles.append(f"{key.removeprefix(INDEX_PREFIX)} {entry['step']} {trouble}")
    yield Finding(what, "; ".join(troubles) or None)


def _trouble(store: Any, entry: dict[str, Any]) -> str | None:
    digest = hashlib.sha256()
    try:
        with store.open_reader(entry["artifact_id"]) as reader:
            while data := reader.read(_READ_BYTES):
                digest.update(data)
    except ArtifactNotFound:
        return "is missing"
    except (StorageError, OSError) as error:
        return f"cannot be read ({error})"
    return None if digest.hexdigest() == entry["sha256"] else "is damaged"


def clear(storage: RDBStorage, *, hours: float = 1.0, dry: bool = False) -> Iterator[Cleared]:
    """Removes artifacts that no study names: what killed workers left, and deleted studies.

    In a folder or bucket, which other databases may use too, only what studies of this database wrote is touched.

    Args:
        storage: The database.
        hours: What is younger is left: it may be named in a moment.
        dry: Whether to look only.

    Yields:
        What was found, for every place.

    Raises:
        StorageError: If a place cannot be used.
    """
    places: dict[str | None, None] = {None: None}
    places |= {_spec(study, studies): None for studies in [storage.get_all_studies()] for study in studies}
    limit = datetime.now(timezone.utc) - timedelta(hours=hours)
    for spec in places:
        store: Any = open_artifact_store(spec, storage)
        # Listed before the names are read: what is named in between is not taken for nobody's.
        there = list(store.stored())
        studies = storage.get_all_studies()
        named = _named(storage, studies)
        mine = tuple(f"{ARTIFACT_PREFIX}{s.system_attrs[OWNER]}-" for s in studies if OWNER in s.system_attrs)
        nobodys = [a for a in there if a.name not in named]
        ours = [a for a in nobodys if spec is None or a.name.startswith((*mine, ".part-"))]
        old = [a for a in ours if a.written < limit]
        for artifact in old if not dry else ():
            with suppress(ArtifactNotFound):  # its owner was quicker
                store.remove(artifact.name)
        yield Cleared(
            place=spec or "the database",
            kept=len(there) - len(nobodys),
            young=len(ours) - len(old),
            foreign=len(nobodys) - len(ours),
            removed=len(old),
            bytes=sum(a.bytes for a in old),
        )


def _named(storage: RDBStorage, studies: list[FrozenStudy]) -> set[str]:
    """Every artifact that a study or trial names, by us or through Optuna's own calls."""
    named = {
        entry["artifact_id"]
        for study in studies
        for key, entries in study.system_attrs.items()
        if key.startswith(INDEX_PREFIX)
        for entry in entries
    }
    uploaded = [value for s in studies for key, value in s.system_attrs.items() if key.startswith(OPTUNAS_PREFIX)]
    attr = models.TrialSystemAttributeModel.__table__.c
    with storage.engine.connect() as connection:
        query = sa.select(attr.value_json).where(attr.key.startswith(OPTUNAS_PREFIX, autoescape=True))
        uploaded += [json.loads(text) for text in connection.execute(query).scalars()]
    return named | {json.loads(value)["artifact_id"] for value in uploaded}


def _spec(study: FrozenStudy, studies: list[FrozenStudy]) -> str | None:
    """Where a search keeps the artifacts of its studies; None for the database, and for studies of others."""
    names = {study.study_name, study.study_name.removesuffix(FIT), study.study_name.removesuffix(RETRAIN)}
    found = [s.user_attrs[SETTINGS] for s in studies if s.study_name in names and SETTINGS in s.user_attrs]
    return found[0].get("artifacts") if found else None
