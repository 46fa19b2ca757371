"""Exceptions of optuna_aes: one base class, so that a caller can catch all of ours and nothing else."""


class AesError(Exception):
    """Base of every exception that optuna_aes raises on purpose."""


class InputError(AesError, ValueError):
    """What the user gave cannot be used. The message is one line: what is wrong, and what to do."""


class DataError(InputError):
    """A table or an encoded dataset is missing, malformed, or not the one the study was made with."""


class StorageError(AesError):
    """The storage cannot be reached, or does not hold what was asked for."""


class StudyMismatchError(InputError):
    """A study of that name exists and was made with other data, fields, candidates, strategy or options."""
