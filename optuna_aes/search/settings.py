"""A search's settings as JSON in its study: what may never change under a name, and what a later run may raise."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import optuna

from optuna_aes.errors import InputError, StudyMismatchError

T = TypeVar("T")

SETTINGS = "aes:settings"
PLAN = "aes:plan"
DATA = "aes:data"

FORMAT = 1

# Options that came later, with what a study from before was made with: their defaults, as reviving it gives. Written out, as
# the models' own would load torch for a look at a study.
_LATER: dict[str, Any] = {
    "model.cross_layers": 3,
    "strategy.one_shot": True,
    "strategy.options.race": 0.0,
    "strategy.options.blocks": "field",
    "strategy.options.parts": 5,
    **{
        f"{stage}.{option}": value
        for stage in ("train", "fit")
        for option, value in {
            "compile": False,
            "amp": False,
            "deterministic": False,
            "tables": "adam",
            "table_lr": None,
        }.items()
    },
}


@dataclass(frozen=True)
class Plan:
    """How much is asked for; a later run under the same name may ask for more.

    Args:
        trials: Subnets to score.
        retrain: Searched sizes to train from scratch.
        retrain_seeds: How often each.
        reference: Whether uniform sizes are trained too, as reference points.
        picks_at: Shares of the budget at which one choice of sizes each is trained from scratch, and no other: for
            searches that are to be compared. None takes the strategy's own levels, and ``retrain`` sizes along them.
    """

    trials: int = 300
    retrain: int = 5
    retrain_seeds: int = 1
    reference: bool = True
    picks_at: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("retrain", 0), ("retrain_seeds", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name}={getattr(self, name)} is out of range: give at least {least}")
        if self.picks_at is not None and not (self.picks_at and all(0 < share <= 1 for share in self.picks_at)):
            raise InputError(f"picks_at={self.picks_at} must be one or more shares of the budget in (0, 1]")

    @property
    def picks(self) -> int:
        """How many choices of sizes are trained from scratch, at most."""
        return self.retrain if self.picks_at is None else len(self.picks_at)


def check_seed(seed: int) -> None:
    """Refuses what numpy or torch would not take as a seed.

    Raises:
        InputError: If it is out of range.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"seed={seed} is out of range: give 0 to {2**32 - 1}")


def reference_sizes(full: int) -> list[int]:
    """The uniform sizes that serve as reference points: 1, 2, 4, … up to D, and D itself."""
    return sorted({full, *(2**k for k in range(full.bit_length()) if 2**k <= full)})


def write(study: optuna.Study, settings: Mapping[str, Any], plan: Plan, data: Mapping[str, Any]) -> None:
    """Writes the settings to a study that has none, or the plan to one that has the same.

    Args:
        study: The main study of a search.
        settings: What may never change, JSON-ready.
        plan: What is asked for now.
        data: Where the dataset lies and what is known of it.

    Raises:
        StudyMismatchError: If the study was made with other settings, or is not one of ours.
    """
    known = known_settings(study)
    if known is None:
        # The settings come last: a study that has them is complete.
        study.set_user_attr(DATA, dict(data))
        study.set_user_attr(PLAN, jsonable(plan))
        study.set_user_attr(SETTINGS, dict(settings))
        return
    check_same(study.study_name, known, settings)
    if study.user_attrs.get(PLAN) != jsonable(plan):
        study.set_user_attr(PLAN, jsonable(plan))
    at = study.user_attrs.get(DATA, {})
    # The same rows, given in memory or from elsewhere this time: they still lie there.
    data = {**data, **{key: at[key] for key in ("folder", "origin") if data.get(key) is None and key in at}}
    if at != dict(data):
        study.set_user_attr(DATA, dict(data))


def known_settings(study: optuna.Study) -> dict[str, Any] | None:
    """The settings that a study was made with; None if its creation was cut short, or has just begun.

    Raises:
        StudyMismatchError: If the study is not one of ours.
    """
    known: dict[str, Any] | None = study.user_attrs.get(SETTINGS)
    if known is None and study.get_trials(deepcopy=False):
        raise StudyMismatchError(
            f"study {study.study_name!r} exists and is not a search of optuna_aes: choose another name"
        )
    return known


def check_same(name: str, known: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuses to go on with other settings, and says which differ.

    Raises:
        StudyMismatchError: If any value differs.
    """
    found = list(differences(known, jsonable(settings)))
    # Where the supernet is trained like the models, one option changes both: say it once.
    said = {(f"fit.{key.removeprefix('train.')}", repr(old), repr(new)) for key, old, new in found}
    found = [d for d in found if (d[0], repr(d[1]), repr(d[2])) not in said or not d[0].startswith("fit.")]
    if found:
        shown = "; ".join(_told(*difference) for difference in found[:3])
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise StudyMismatchError(
            f"study {name!r} was made with other settings: {shown}{more}. Use another name, or the same settings"
        )


def _told(key: str, old: Any, new: Any) -> str:
    if key == "dataset":
        return f"the data (its fingerprint was {old} and is {new}: other rows, or another encoding)"
    return f"{key} was {old!r} and is {new!r}"


def read(study: optuna.Study) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and data of a study.

    Raises:
        StudyMismatchError: If the study is not a search of ours.
    """
    attrs = study.user_attrs
    if SETTINGS not in attrs:
        raise StudyMismatchError(f"study {study.study_name!r} is not a search of optuna_aes: check the name")
    settings = attrs[SETTINGS]
    if settings.get("format") != FORMAT:
        raise StudyMismatchError(
            f"study {study.study_name!r} has settings of format {settings.get('format')!r}, this release reads {FORMAT}"
        )
    return settings, attrs[DATA]


def plan_of(study: optuna.Study) -> Plan:
    """What is asked for now, of a study that has settings: another run may have raised it a moment ago."""
    return revive(Plan, study.user_attrs[PLAN])


def jsonable(value: Any) -> Any:
    """The value as it comes back from JSON: tuples are lists, dataclasses are objects."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return jsonable(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    return value


def revive(kind: type[T], data: Mapping[str, Any]) -> T:
    """A dataclass of the values that :func:`jsonable` made of it."""
    hints = typing.get_type_hints(kind)
    names = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]  # kind is a dataclass
    return kind(**{name: _revived(hints[name], value) for name, value in data.items() if name in names})


def _revived(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        hint = next(h for h in typing.get_args(hint) if h is not type(None))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return revive(hint, value)
    return tuple(value) if typing.get_origin(hint) is tuple else value


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """What differs between settings read from a study and those of now: the key, its old value, its new one."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(k for k in new if k not in old)]:
            inner = f"{path}.{key}" if path else str(key)
            yield from differences(old.get(key, _LATER.get(inner)), new.get(key), inner)
    elif old != new:
        yield path, old, new
