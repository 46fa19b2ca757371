"""Where studies and artifacts are kept: the database, trials in bulk, the queue of work, checkpoints."""

from typing import TYPE_CHECKING, Any

from optuna_aes.storage._messages import safe_url
from optuna_aes.storage.artifacts import DamagedArtifactError, RDBArtifactStore
from optuna_aes.storage.bulk import BulkStorage, add_trials, read_user_attr
from optuna_aes.storage.claims import RequeueTrial
from optuna_aes.storage.engine import check_storage, open_storage
from optuna_aes.storage.places import check_artifacts, open_artifact_store
from optuna_aes.storage.queue import Decision, Hold, LostTrialError, Outcome, WorkQueue
from optuna_aes.storage.workers import worker_identity

if TYPE_CHECKING:
    from optuna_aes.storage.checkpoints import Checkpoints

__all__ = [
    "BulkStorage",
    "Checkpoints",
    "DamagedArtifactError",
    "Decision",
    "Hold",
    "LostTrialError",
    "Outcome",
    "RDBArtifactStore",
    "RequeueTrial",
    "WorkQueue",
    "add_trials",
    "check_artifacts",
    "check_storage",
    "open_artifact_store",
    "open_storage",
    "read_user_attr",
    "safe_url",
    "worker_identity",
]


def __getattr__(name: str) -> Any:
    # Checkpoints alone needs torch, whose import takes longer than a whole `status` or `pareto`.
    if name == "Checkpoints":
        from optuna_aes.storage.checkpoints import Checkpoints

        return Checkpoints
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
