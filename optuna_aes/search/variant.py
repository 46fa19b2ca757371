"""Other ways to train the sizes that a search picked: in another backbone, or on from the supernet's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna_aes.errors import InputError


@dataclass(frozen=True)
class Variant:
    """How the retrain stage differs from the search's own, which trains from scratch in the search's backbone.

    Every variant is a study of its own, ``<name>/retrain@<backbone>`` or ``<name>/retrain@inherited``.

    Args:
        backbone: Another backbone, to see whether the sizes are good in it too; None for the search's own.
        inherited: Whether models start from the weights that they had in the supernet.

    Raises:
        InputError: If both are asked for: weights of one backbone mean nothing in another.
    """

    backbone: str | None = None
    inherited: bool = False

    def __post_init__(self) -> None:
        if self.backbone is not None and self.inherited:
            raise InputError(
                f"backbone={self.backbone!r} cannot start from inherited weights, which are another's: give one of the two"
            )

    @property
    def label(self) -> str:
        """What it is called in names of studies; empty for the search's own way."""
        return "inherited" if self.inherited else self.backbone or ""

    def settings(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """A search's settings as the variant has them."""
        if self.backbone is None:
            return dict(settings)
        return {**settings, "model": {**settings["model"], "backbone": self.backbone}}


OWN = Variant()
"""The search's own way."""
