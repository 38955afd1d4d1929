"""pymatgen's tables of prototypes, beside what pymatgen itself makes of them."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from campaign.types import Crystal
from generators.prototype_tables import aflow_structures, canonical
from generators.wyckoff import group_of


@st.composite
def labels(draw: st.DrawFn) -> tuple[int, str]:
    """A space group, and counted letters of some elements in it."""
    group = draw(st.integers(1, 230))
    letters = st.sampled_from(sorted(position.letter for position in group_of(group).positions))
    element = st.dictionaries(letters, st.integers(1, 12), min_size=1, max_size=4)
    elements = draw(st.lists(element, min_size=1, max_size=3))
    return group, "_".join(
        "".join(f"{sites[letter]}{letter}" for letter in sorted(sites)) for sites in elements
    )


@settings(max_examples=300, deadline=None)
@given(labels())
def test_the_canonical_letters_are_pymatgens(label: tuple[int, str]) -> None:
    from pymatgen.analysis.prototypes import canonicalize_element_wyckoffs

    group, letters = label
    assert canonical(group, letters) == canonicalize_element_wyckoffs(letters, str(group))


def test_the_structures_are_pymatgens() -> None:
    from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY

    found = list(aflow_structures())
    assert len(found) == len(AFLOW_PROTOTYPE_LIBRARY) > 250
    for (name, structure), entry in zip(found, AFLOW_PROTOTYPE_LIBRARY, strict=True):
        theirs = entry["snl"].structure
        assert name == entry["tags"]["aflow"]
        if structure.is_ordered:
            assert Crystal.from_structure(structure).id == Crystal.from_structure(theirs).id


def test_to_name_a_prototype_imports_no_library_of_them() -> None:
    code = (
        "import sys\n"
        "from generators.symmetry import prototype_name\n"
        "assert prototype_name(225, [(1, {'b': 1}), (1, {'a': 1})]) == '225:a_b'\n"
        "assert 'pymatgen.analysis.prototypes' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)
