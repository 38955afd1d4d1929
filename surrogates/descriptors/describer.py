"""Columns from one or several embedders side by side; rows that take long to make are kept by
candidate id, those of many crystals together on disk.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from ase.data import chemical_symbols

from campaign import plugins
from campaign.errors import InputError
from campaign.files import cache_folder
from campaign.parameters import PluginParameter
from campaign.protocols import Embedder
from campaign.types import Crystal, FloatArray
from surrogates.descriptors.kept import kept_rows

_KEPT_ROWS = 200_000
_MANY = 4096
"""Crystals that are described together from which on rows are kept on disk."""

_rows: OrderedDict[tuple[str, tuple[str, ...], str], FloatArray] = OrderedDict()


class Describer:
    """Describes crystals of ``elements`` (alphabetical) by what ``choices`` name."""

    def __init__(self, choices: Sequence[PluginParameter], elements: Sequence[str]) -> None:
        self._elements = tuple(elements)
        self._embedders: list[Embedder] = [
            plugins.build(choice.spec("embedders")) for choice in choices
        ]
        several = len(choices) > 1
        self.names = [
            f"{choice.use}:{name}" if several else name
            for choice, embedder in zip(choices, self._embedders, strict=True)
            for name in embedder.columns(self._elements)
        ]

    def describe(self, crystals: Sequence[Crystal]) -> FloatArray:
        """(n, d), columns as in ``names``. Raises InputError where an embedder gives something
        else.
        """
        parts = [self._rows_of(embedder, crystals) for embedder in self._embedders]
        found = np.concatenate(parts, axis=1)
        _refuse_others(found, (len(crystals), len(self.names)))
        return found

    def _rows_of(self, embedder: Embedder, crystals: Sequence[Crystal]) -> FloatArray:
        many = len(crystals) >= _MANY
        return (self._kept_on_disk if many else self._kept_in_memory)(embedder, crystals)

    def _kept_in_memory(self, embedder: Embedder, crystals: Sequence[Crystal]) -> FloatArray:
        if not embedder.is_worth_keeping:
            return embedder.embed(crystals, self._elements)
        keys = [(embedder.version, self._elements, crystal.id) for crystal in crystals]
        missing = {
            key: crystal for key, crystal in zip(keys, crystals, strict=True) if key not in _rows
        }
        if missing:
            _rows.update(
                zip(missing, embedder.embed(list(missing.values()), self._elements), strict=True)
            )
        rows = [_rows[key] for key in keys]
        while len(_rows) > _KEPT_ROWS:
            _rows.popitem(last=False)
        return np.array(rows).reshape(len(crystals), -1)

    def _kept_on_disk(self, embedder: Embedder, crystals: Sequence[Crystal]) -> FloatArray:
        width = len(embedder.columns(self._elements))

        def anew(places: Sequence[int]) -> FloatArray:
            rows = self._kept_in_memory(embedder, [crystals[place] for place in places])
            _refuse_others(rows, (len(places), width))
            return rows

        kept = kept_rows(cache_folder("features"), embedder.version, self._elements, width)
        return kept.rows([crystal.id for crystal in crystals], anew)


def _refuse_others(rows: FloatArray, shape: tuple[int, int]) -> None:
    """Raises InputError for rows of another shape, or that are not finite."""
    if rows.shape != shape or not np.isfinite(rows).all():
        raise InputError(
            f"embedders gave an array {rows.shape} for {shape[0]} crystals and {shape[1]} columns, "
            "or not finite"
        )


def elements_of(crystals: Sequence[Crystal]) -> tuple[str, ...]:
    """All elements of the crystals in alphabetical order."""
    numbers = set(
        itertools.chain.from_iterable(np.unique(crystal.numbers).tolist() for crystal in crystals)
    )
    return tuple(sorted(chemical_symbols[number] for number in numbers))
