"""The conformance kit for screens: ours and the users'. ``oreloop screen check`` runs it, and
``check_screen`` in pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from campaign.crystals.lattice import supercell
from campaign.protocols import PluginSpec
from campaign.testing.bench import ELEMENTS, alloys, built, reordered, spec_of
from campaign.testing.findings import Check, Finding, findings, passed, tell_nobody
from campaign.types import Candidate, Crystal, SearchSpace, Verdict


def examine_screen(
    spec: PluginSpec,
    *,
    crystals: Sequence[Crystal] = (),
    on_step: Callable[[str], None] = tell_nobody,
) -> Iterator[Finding]:
    """Run all checks on a screen, one finding after another. The search space is of the elements of
    ``spec``.

    ``crystals``: what it judges beside the kit's own alloys.
    """
    yield from findings(_Checks(spec, crystals).all(), on_step)


class _Checks:
    def __init__(self, spec: PluginSpec, crystals: Sequence[Crystal]) -> None:
        self.elements = spec.elements or ELEMENTS
        self.spec = replace(spec, elements=self.elements)
        first, last = self.elements[0], self.elements[-1]
        ordered = supercell("bcc", (1, 1, 1), [first, last])
        self.crystals = [
            *crystals,
            *alloys(self.elements, 3),
            ordered,
            Crystal(1.6 * ordered.lattice, ordered.fractional, ordered.numbers),
            Crystal(0.7 * ordered.lattice, ordered.fractional, ordered.numbers),
        ]

    def all(self) -> dict[str, Check]:
        return {
            "gives verdicts": self.verdicts_given,
            "reasons": self.reasons,
            "same again": self.same_again,
            "one by one": self.one_by_one,
            "order of atoms": self.atoms,
            "candidate unchanged": self.unchanged,
        }

    def judged(self, screen: Any, crystals: Sequence[Crystal]) -> list[Verdict]:
        return [
            screen.judge(Candidate(crystal), SearchSpace(self.elements)) for crystal in crystals
        ]

    @cached_property
    def verdicts(self) -> list[Verdict]:
        return self.judged(built(self.spec), self.crystals)

    def verdicts_given(self) -> str:
        for verdict in self.verdicts:
            assert isinstance(verdict, Verdict), (
                f"judge gave {type(verdict).__name__}, expected a Verdict"
            )
            assert isinstance(verdict.accepted, bool | np.bool_), (
                f"accepted is {type(verdict.accepted).__name__}, expected a truth value"
            )
        return (
            f"{sum(bool(verdict.accepted) for verdict in self.verdicts)} of "
            f"{len(self.verdicts)} accepted"
        )

    def reasons(self) -> str:
        refused = [verdict for verdict in self.verdicts if not verdict.accepted]
        for verdict in refused:
            assert verdict.screen, "a refusal does not name the screen"
            assert str(verdict.reason).strip(), f"{verdict.screen} refuses without a reason"
        return (
            "; ".join(dict.fromkeys(verdict.reason for verdict in refused[:3]))
            or "refuses none of these"
        )

    def compare(self, others: Sequence[Verdict], how: str) -> None:
        for crystal, one, other in zip(self.crystals, self.verdicts, others, strict=True):
            told = [
                f"{'accepted' if verdict.accepted else 'refused'} {verdict.reason}".strip()
                for verdict in (one, other)
            ]
            assert bool(one.accepted) == bool(other.accepted), (
                f"{crystal.formula}: {told[0]}; {how} {told[1]}"
            )

    def same_again(self) -> str:
        """By the same screen again, and by another instance."""
        screen = built(self.spec)
        for _ in range(2):
            self.compare(self.judged(screen, self.crystals), "the next time")
        return ""

    def one_by_one(self) -> str:
        """What was judged before decides nothing: candidates are judged in parallel, and again
        after a resume.
        """
        self.compare(self.judged(built(self.spec), self.crystals[::-1])[::-1], "in another order")
        return ""

    def atoms(self) -> str:
        self.compare(
            self.judged(built(self.spec), [reordered(crystal) for crystal in self.crystals]),
            "with its atoms in another order",
        )
        return ""

    def unchanged(self) -> str:
        screen = built(self.spec)
        space = SearchSpace(self.elements)
        before = repr(space)
        for crystal in self.crystals:
            copy = Crystal.from_bytes(crystal.to_bytes())
            candidate = Candidate(copy)
            screen.judge(candidate, space)
            assert candidate.crystal.to_bytes() == crystal.to_bytes(), (
                f"judge changes {crystal.formula}"
            )
            assert repr(space) == before, "judge changes the search space"
        return ""


def check_screen(
    screen: str,
    params: Mapping[str, Any] | None = None,
    *,
    elements: Sequence[str] = ELEMENTS,
    crystals: Sequence[Crystal] = (),
    folder: Path | None = None,
) -> list[Finding]:
    """For pytest: run the kit on a screen by name or ``module:Class``. Raises AssertionError that
    lists what failed.

    ``crystals``: what it judges beside the kit's own alloys; ``folder``: where a user's module
    lies.
    """
    spec = spec_of("screens", screen, params, elements, folder)
    built(spec)
    return passed(examine_screen(spec, crystals=crystals))
