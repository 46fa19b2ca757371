"""Tables and encoded datasets."""

from optuna_aes.data.cache import dataset_for
from optuna_aes.data.dataset import OOV, PAD, SPLITS, Dataset, FieldSpec, Schema, Split
from optuna_aes.data.encode import Progress, encode
from optuna_aes.data.encoder import Encoder
from optuna_aes.data.options import EncodeOptions
from optuna_aes.data.sources import FORMATS, Source, read_source

__all__ = [
    "FORMATS",
    "OOV",
    "PAD",
    "SPLITS",
    "Dataset",
    "EncodeOptions",
    "Encoder",
    "FieldSpec",
    "Progress",
    "Schema",
    "Source",
    "Split",
    "dataset_for",
    "encode",
    "read_source",
]
