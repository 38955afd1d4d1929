"""Errors that a person reads: what was expected, what came, what to do. Each kind has its exit
code.
"""

from __future__ import annotations

from typing import Any


class OreloopError(Exception):
    """Base of all errors raised for a person. ``hint`` says what to do; ``exit_code`` is the
    command's exit status.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors cross from workers as they are, whatever their classes' constructors ask for."""
        return _again, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        return f"{self.message}\n  what to do: {self.hint}" if self.hint else self.message


def _again(
    kind: type[OreloopError], arguments: tuple[Any, ...], fields: dict[str, Any]
) -> OreloopError:
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    error.__dict__.update(fields)
    return error


class InputError(OreloopError):
    """A config, a data file or an argument is wrong."""

    exit_code = 2


class StoppedByFailuresError(OreloopError):
    """Every oracle is paused because it failed too often."""

    exit_code = 3


class OracleDriftedError(StoppedByFailuresError):
    """A sentinel's value is not what it was, or not what is known."""


class StuckError(OreloopError):
    """Work is pending that nothing will ever do."""


class ContradictionError(OreloopError):
    """An event contradicts what the ledger holds; it was not recorded."""


class SurroundingsError(OreloopError):
    """Disk, lock, ledger, cluster or an engine: something around the campaign is wrong."""

    exit_code = 4


class LedgerDamagedError(SurroundingsError):
    """The ledger's database or journal cannot be read."""


class CampaignLockedError(SurroundingsError):
    """Another driver holds the campaign folder."""
