"""Errors a user can meet. Each message is one sentence: what is wrong, where, what to do.

RpoDataError
├── LogError         the logs cannot be found, or hold nothing that can be used
├── RecipeError      a setting is wrong
├── EmbedderError    the embedding model cannot be loaded or used
├── DatasetError     a folder is not a mined contrast dataset, or its tables do not belong together
├── HubError         the Hugging Face Hub refuses, fails or cannot be reached
├── TrainingError    a training run cannot start as asked
└── MissingExtra     a package of an extra is not installed
"""


class RpoDataError(Exception):
    """Base of all errors of this package."""


class LogError(RpoDataError):
    """The logs cannot be found, or hold nothing that can be used."""


class RecipeError(RpoDataError):
    """A setting is wrong."""


class EmbedderError(RpoDataError):
    """The embedding model cannot be loaded or used."""


class DatasetError(RpoDataError):
    """A folder is not a mined contrast dataset, or its tables do not belong together."""


class HubError(RpoDataError):
    """The Hugging Face Hub refuses, fails or cannot be reached."""


class TrainingError(RpoDataError):
    """A training run cannot start as asked."""


class MissingExtra(RpoDataError):
    """A package of an extra is not installed."""
