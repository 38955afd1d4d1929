"""The conformance kit for embedders: ours and the users'. ``oreloop embedder check`` runs it, and
``check_embedder`` in pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
from pydantic import BaseModel

from campaign import plugins
from campaign.errors import OreloopError
from campaign.protocols import Embedder, PluginSpec
from campaign.testing.bench import ELEMENTS, alloys, built, reordered, shape_told, spec_of
from campaign.testing.findings import Check, Finding, Skipped, findings, passed, tell_nobody
from campaign.types import Crystal, FloatArray

_TOLERANCE = 1e-6
"""Of a column's size: by how much a row may change with the order of atoms or of crystals."""


def examine_embedder(
    spec: PluginSpec, *, on_step: Callable[[str], None] = tell_nobody
) -> Iterator[Finding]:
    """Run all checks on an embedder, one finding after another. The alloys that it sees are of the
    elements of ``spec``.
    """
    yield from findings(_Checks(spec).all(), on_step)


class _Checks:
    def __init__(self, spec: PluginSpec) -> None:
        self.elements = tuple(sorted(spec.elements or ELEMENTS))
        self.spec = replace(spec, elements=self.elements)
        self.crystals = alloys(self.elements, 6)

    def all(self) -> dict[str, Check]:
        return {
            "is an embedder": self.port,
            "a name for each column": self.columns,
            "no crystals": self.none,
            "same again": self.same_again,
            "order of crystals": self.order,
            "order of atoms": self.atoms,
            "tells crystals apart": self.apart,
            "version": self.version,
            "version and settings": self.settings,
        }

    def rows_of(self, embedder: Any, crystals: Sequence[Crystal]) -> FloatArray:
        rows = np.asarray(embedder.embed(crystals, self.elements))
        assert rows.shape[:-1] == (len(crystals),), (
            f"rows of {len(crystals)} crystals are {shape_told(rows)}"
        )
        assert np.isfinite(rows).all(), "rows are not finite"
        return rows

    @cached_property
    def rows(self) -> FloatArray:
        return self.rows_of(built(self.spec), self.crystals)

    def differ(self, rows: FloatArray, others: FloatArray) -> float:
        return float(
            (np.abs(rows - others) / np.maximum(np.abs(self.rows).max(0), 1.0)).max(initial=0.0)
        )

    def port(self) -> str:
        embedder = built(self.spec)
        assert isinstance(embedder, Embedder), (
            "expected is_worth_keeping, version, columns and embed"
        )
        return (
            "rows are kept by candidate"
            if embedder.is_worth_keeping
            else "rows are made anew each time"
        )

    def columns(self) -> str:
        names = list(built(self.spec).columns(self.elements))
        width = self.rows.shape[1]
        assert len(names) == width, f"columns() names {len(names)}, rows have {width}"
        twice = sorted({name for name in names if names.count(name) > 1})
        assert not twice, f"two columns are called {twice[0]}"
        return f"{width}: {', '.join(names[:4])}{', ...' if width > 4 else ''}"

    def none(self) -> str:
        found = np.asarray(built(self.spec).embed([], self.elements))
        assert found.shape == self.rows[:0].shape, (
            f"no crystals give {shape_told(found)}, expected 0 x {self.rows.shape[1]}"
        )
        return ""

    def same_again(self) -> str:
        embedder = built(self.spec)
        for rows in (self.rows_of(embedder, self.crystals), self.rows_of(embedder, self.crystals)):
            assert self.differ(self.rows, rows) <= 1e-12, (
                "another look at the same crystals gives other rows"
            )
        return ""

    def order(self) -> str:
        """Rows follow their crystals in any order, and alone."""
        embedder = built(self.spec)
        change = self.differ(self.rows, self.rows_of(embedder, self.crystals[::-1])[::-1])
        assert change < _TOLERANCE, "rows do not follow the order of the crystals"
        alone = np.concatenate([self.rows_of(embedder, [crystal]) for crystal in self.crystals])
        change = max(change, self.differ(self.rows, alone))
        assert change < _TOLERANCE, "a crystal's row depends on those asked with it"
        return f"largest change {change:.1g}"

    def atoms(self) -> str:
        change = self.differ(
            self.rows,
            self.rows_of(built(self.spec), [reordered(crystal) for crystal in self.crystals]),
        )
        assert change < _TOLERANCE, (
            f"rows change with the order of the atoms, by {change:.2g} of a column's size"
        )
        return f"largest change {change:.1g}"

    def apart(self) -> str:
        n = len(np.unique(np.round(self.rows, 9), axis=0))
        assert n > 1, "all crystals have one row"
        return f"{n} rows of {len(self.crystals)} crystals"

    def version(self) -> str:
        first, second = built(self.spec), built(self.spec)
        self.rows_of(second, self.crystals)
        assert first.version, "version is empty"
        assert isinstance(first.version, str), f"version is {first.version!r}, expected a name"
        assert first.version == second.version, (
            f"version changes from {first.version!r} to {second.version!r} at the same settings"
        )
        return str(first.version)

    def settings(self) -> str:
        """Settings that change rows change the version, as rows are kept by it."""
        version = built(self.spec).version
        tried = []
        for name, value in self.others():
            try:
                other = plugins.build(replace(self.spec, params={**self.spec.params, name: value}))
                rows = self.rows_of(other, self.crystals)
            except (OreloopError, AssertionError):
                continue
            is_other = rows.shape != self.rows.shape or self.differ(self.rows, rows) > _TOLERANCE
            assert not is_other or other.version != version, (
                f"{name}: {value} gives other rows under the same version {version!r}"
            )
            tried.append(name)
        if not tried:
            raise Skipped("it has no settings that could be changed here")
        return ", ".join(tried)

    def others(self) -> Iterator[tuple[str, Any]]:
        """Another value of each setting that is a number, a truth value or one of some words."""
        config = getattr(built(self.spec), "config", None)
        if not isinstance(config, BaseModel):
            return
        for name, field in type(config).model_fields.items():
            value = getattr(config, name)
            if get_origin(field.annotation) is Literal:
                yield from ((name, other) for other in get_args(field.annotation) if other != value)
            elif isinstance(value, bool):
                yield name, not value
            elif isinstance(value, int):
                yield name, value + 1
            elif isinstance(value, float):
                yield name, value * 0.8


def check_embedder(
    embedder: str,
    params: Mapping[str, Any] | None = None,
    *,
    elements: Sequence[str] = ELEMENTS,
    folder: Path | None = None,
) -> list[Finding]:
    """For pytest: run the kit on an embedder by name or ``module:Class``. Raises AssertionError
    that lists what failed.

    ``folder`` is where a user's module lies.
    """
    spec = spec_of("embedders", embedder, params, elements, folder)
    built(spec)
    return passed(examine_embedder(spec))
