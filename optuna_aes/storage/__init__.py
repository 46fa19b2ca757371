"""Where studies and artifacts are kept: the database, trials in bulk, checkpoints, and the claims of dead workers."""

from typing import TYPE_CHECKING, Any

from optuna_aes.storage._messages import safe_url
from optuna_aes.storage.artifacts import DamagedArtifactError, RDBArtifactStore
from optuna_aes.storage.bulk import BulkStorage, add_trials, read_user_attr
from optuna_aes.storage.claims import RequeueTrial, mark_worker, reclaim_dead, release, worker_identity
from optuna_aes.storage.engine import check_storage, open_storage
from optuna_aes.storage.places import check_artifacts, open_artifact_store

if TYPE_CHECKING:
    from optuna_aes.storage.checkpoints import Checkpoints

__all__ = [
    "BulkStorage",
    "Checkpoints",
    "DamagedArtifactError",
    "RDBArtifactStore",
    "RequeueTrial",
    "add_trials",
    "check_artifacts",
    "check_storage",
    "mark_worker",
    "open_artifact_store",
    "open_storage",
    "read_user_attr",
    "reclaim_dead",
    "release",
    "safe_url",
    "worker_identity",
]


def __getattr__(name: str) -> Any:
    # Checkpoints alone needs torch, whose import takes longer than a whole `status` or `pareto`.
    if name == "Checkpoints":
        from optuna_aes.storage.checkpoints import Checkpoints

        return Checkpoints
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
