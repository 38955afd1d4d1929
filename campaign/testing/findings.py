"""What a check finds, and how checks are run one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from campaign.blame import told

Status = Literal["passed", "failed", "skipped"]
Check = Callable[[], str | None]
"""Returns what it found, raises AssertionError where it failed and Skipped where it says
nothing.
"""


@dataclass(frozen=True)
class Finding:
    check: str
    status: Status
    detail: str


class Skipped(Exception):  # noqa: N818
    """A check that says nothing about this plug-in."""


def tell_nobody(step: str) -> None: ...


def finding(name: str, check: Check) -> Finding:
    """Of one check; what else it raises passes."""
    try:
        return Finding(name, "passed", check() or "")
    except Skipped as skipped:
        return Finding(name, "skipped", str(skipped))
    except AssertionError as failed:
        return Finding(name, "failed", str(failed))


def findings(checks: Mapping[str, Check], on_step: Callable[[str], None]) -> Iterator[Finding]:
    """Of checks that call a plug-in in this process: what it raises is a failure of the check."""
    for name, check in checks.items():
        on_step(name)
        try:
            yield finding(name, check)
        except Exception as error:
            yield Finding(name, "failed", f"raised {told(error)}")


def passed(found: Iterable[Finding]) -> list[Finding]:
    """All findings. Raises AssertionError that lists those that failed."""
    everything = list(found)
    failed = [item for item in everything if item.status == "failed"]
    assert not failed, "\n".join(f"{item.check}: {item.detail}" for item in failed)
    return everything
