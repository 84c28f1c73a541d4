"""Every error that mop raises on purpose, under one root. Each message says what to do next."""

from __future__ import annotations

from dataclasses import dataclass


class MopError(Exception):
    """Root of all errors raised by mop."""

    #: Exit status of the command line when this error ends a command.
    exit_code = 1


class SettingsError(MopError):
    """An option, a settings file or an environment variable has a value that cannot be used."""

    exit_code = 2


class DataError(MopError):
    """The examples cannot be used; the message lists every bad row with its line number and reason."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class RowProblem:
    """Why one row cannot be used; ``unit`` and ``position`` say which (``line 7``, ``row 7``, ``item 6``).

    Lines and rows count from 1, as editors do; items count from 0, as Python does.
    """

    position: int
    reason: str
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.unit} {self.position}: {self.reason}"


class BadRows(DataError):
    """Some rows of the examples cannot be used; ``problems`` lists every one of them."""

    def __init__(self, message: str, problems: tuple[RowProblem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class ModelError(MopError):
    """The language model or its endpoint cannot answer, and asking again would not help."""

    exit_code = 4


class ModelUnavailable(ModelError):
    """The endpoint kept failing until the deadline; the run can be continued later with the same command."""


class BudgetExceeded(MopError):
    """The next model call would pass the cap on calls, tokens or money. It was not sent."""

    exit_code = 5


class UnknownPrice(SettingsError):
    """A money cap is set, but the price of the model isn't known."""


class WeightsError(ModelError):
    """Model weights could not be fetched, or do not have the expected hash."""


class LedgerError(MopError):
    """The ledger file cannot be read or written."""

    exit_code = 6


class DamagedLedger(LedgerError):
    """The ledger isn't what was written to it; ``problems`` says how."""

    def __init__(self, message: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class LedgerUnavailable(LedgerError):
    """The server that keeps the ledger is gone for now; the run can be continued later with the same command."""


class NotRecorded(LedgerError):
    """A run that only replays the ledger asked for a call that the ledger doesn't have. Nothing was sent."""


class ArtifactError(MopError):
    """The mixture file is damaged, of another version, or not a mixture."""

    exit_code = 7


class EncoderMismatch(ArtifactError):
    """The encoder at hand isn't the one that the mixture was learned with."""


class ClusterError(MopError):
    """The Dask cluster cannot do the work: no scheduler answers, or its workers are gone. Nothing recorded is lost."""

    exit_code = 8
