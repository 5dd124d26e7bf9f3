"""Errors that a user can mend. Each says what was found, what is needed and how to get there."""

from __future__ import annotations

from pathlib import Path


class UserError(Exception):
    """Something outside the program is wrong; its message is printed alone, without a traceback.

    exit_code: 2 where it is found before any record is read (settings, model, usage), 1 otherwise.
    """

    exit_code = 2


class SettingsError(UserError):
    """A setting is missing, unknown or out of range."""


class BrokerError(UserError):
    """Kafka cannot be reached, refuses, or lacks a topic."""


class BrokerUnreachable(BrokerError):
    """No answer from Kafka; it may come back."""


class StreamError(UserError):
    """The input cannot be read on; found while running."""

    exit_code = 1


class ModelError(UserError):
    """A model version is missing, torn, or does not fit."""


class RegistryError(UserError):
    """The registry cannot be read or written."""


class InputError(UserError):
    """A file of readings cannot be used."""


class TrainingError(UserError):
    """A training run cannot start or its result cannot be used."""

    exit_code = 1


def written(path: Path, text: str, flag: str) -> None:
    """A file that a command was asked for. Raises UserError, naming the flag, where it cannot be written."""
    try:
        path.write_text(text)
    except OSError as error:
        raise UserError(f"{flag} {path}: {error.strerror}; name a file that can be written") from None
