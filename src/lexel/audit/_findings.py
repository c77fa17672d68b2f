"""What an audit returns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["Audit", "Finding", "Verdict"]

Verdict = Literal["ok", "wrong", "not applicable"]


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: the name of the check.
        verdict: `"ok"`, `"wrong"` or `"not applicable"`.
        evidence: what was measured, in one line.
    """

    check: str
    verdict: Verdict
    evidence: str


@dataclass(frozen=True)
class Audit:
    """All findings about a module; iterates over them, and prints as a table.

    Attributes:
        findings: in the order of the checks.
    """

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return all(finding.verdict != "wrong" for finding in self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __getitem__(self, check: str) -> Finding:
        """Return the finding of a check by its name."""
        return {finding.check: finding for finding in self.findings}[check]

    def __str__(self) -> str:
        marks = {"ok": "ok", "wrong": "WRONG", "not applicable": "–"}
        widest = max(len(finding.check) for finding in self.findings)
        return "\n".join(f"{one.check:{widest}}  {marks[one.verdict]:5}  {one.evidence}" for one in self.findings)
