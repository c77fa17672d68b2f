"""What a check is, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lexel.audit._findings import Finding, Verdict
from lexel.audit._subject import Subject

__all__ = ["NO_CODES", "Check", "Outcome", "not_applicable", "ok", "verdict", "wrong"]

Outcome = tuple[Verdict, str]

NO_CODES = "no parameter or buffer holds the quantized vectors"


def ok(evidence: str) -> Outcome:
    """All is well."""
    return "ok", evidence


def wrong(evidence: str) -> Outcome:
    """Something is wrong."""
    return "wrong", evidence


def not_applicable(reason: str) -> Outcome:
    """The check has no meaning for this module."""
    return "not applicable", reason


def verdict(is_wrong: bool, evidence: str) -> Outcome:
    """Return `wrong` or `ok` with the same evidence."""
    return wrong(evidence) if is_wrong else ok(evidence)


@dataclass(frozen=True)
class Check:
    """One check of the audit.

    Attributes:
        name: as findings and tables show it.
        examine: from the subject to the outcome.
        needs_codes: whether it has no meaning for a module without a table of codes.
    """

    name: str
    examine: Callable[[Subject], Outcome]
    needs_codes: bool = False

    def __call__(self, subject: Subject) -> Finding:
        """Examine the subject."""
        if self.needs_codes and not subject.has_codes:
            return Finding(self.name, *not_applicable(NO_CODES))
        return Finding(self.name, *self.examine(subject))
