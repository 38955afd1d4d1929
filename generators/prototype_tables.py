"""pymatgen's tables of prototypes, read as data: to import its module takes seconds, as that parses
the references of each structure.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pymatgen.core import Structure


def _read(name: str) -> Any:
    spec = importlib.util.find_spec("pymatgen.analysis.prototypes")
    assert spec is not None
    assert spec.origin is not None
    with gzip.open(Path(spec.origin).parent / f"{name}.json.gz", "rt") as file:
        return json.load(file)


@cache
def _relabelings() -> Mapping[str, list[dict[int, str]]]:
    """By space group: the Wyckoff letters under each choice of origin and axes."""
    return {
        group: [{int(code): letter for code, letter in one.items()} for one in choices]
        for group, choices in _read("wyckoff-position-relabelings").items()
    }


@lru_cache(maxsize=200_000)
def canonical(space_group: int, letters: str) -> str:
    """Counted Wyckoff letters of each element, such as ``1a2c_3b``, under the choice of origin and
    axes with the earliest letters (R. E. A. Goodall et al., Sci. Adv. 8 (2022) eabn4117).
    """
    choices = {letters.translate(one) for one in _relabelings()[str(space_group)]}
    return min((_lateness(choice), _in_order(choice)) for choice in choices)[1]


def _in_order(letters: str) -> str:
    """The letters of each element in alphabetical order; a count of one is left out."""
    return "_".join(
        "".join(
            f"{'' if count == '1' else count}{letter}"
            for count, letter in sorted(_counted(element), key=lambda pair: pair[1])
        )
        for element in letters.split("_")
    )


def _lateness(letters: str) -> int:
    """The sum of the letters' places in the alphabet; the 27th letter, A, counts nothing."""
    return sum(
        0 if letter == "A" else ord(letter) - ord("a") + 1 for _, letter in _counted(letters)
    )


def _counted(letters: str) -> list[tuple[str, str]]:
    return re.findall(r"(\d+)([A-Za-z])", letters)


def aflow_structures() -> Iterator[tuple[str, Structure]]:
    """Names and structures of the AFLOW library of prototypes (M. J. Mehl et al., Comput. Mater.
    Sci. 136 (2017) S1).
    """
    from pymatgen.core import Structure

    for entry in _read("aflow_prototypes"):
        yield entry["tags"]["aflow"], Structure.from_dict(entry["snl"])
