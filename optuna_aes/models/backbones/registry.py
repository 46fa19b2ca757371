"""The backbones by name."""

from __future__ import annotations

from optuna_aes.errors import InputError
from optuna_aes.models.backbones.attention import AutoInt
from optuna_aes.models.backbones.base import Backbone
from optuna_aes.models.backbones.cross import DCNv2
from optuna_aes.models.backbones.fm import FM, DeepFM, WideDeep
from optuna_aes.models.backbones.neumf import NeuMF
from optuna_aes.models.backbones.tower import MLP

BACKBONES: dict[str, type[Backbone]] = {
    "mlp": MLP,
    "fm": FM,
    "widedeep": WideDeep,
    "deepfm": DeepFM,
    "dcnv2": DCNv2,
    "autoint": AutoInt,
    "neumf": NeuMF,
}


def backbone_class(name: str) -> type[Backbone]:
    """The backbone of that name.

    Raises:
        InputError: If there is none.
    """
    try:
        return BACKBONES[name]
    except KeyError:
        raise InputError(f"backbone={name!r} is not known: give one of {', '.join(BACKBONES)}") from None
