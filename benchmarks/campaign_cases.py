"""Situations of whole campaigns: imports, sameness, scale and elements of models, what is hashed,
what is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.input_cases import RIGHT, Case, compared
from benchmarks.scale_of_labels import chosen
from campaign import plugins
from campaign.api import Campaign
from campaign.config import loaded as configs
from campaign.crystals.lattice import supercell
from campaign.crystals.matching import KeyIndex, Matcher, equivalence_key
from campaign.protocols import PluginSpec
from campaign.rounds.survey import survey
from campaign.types import Candidate, Crystal

_PLAIN: dict[str, Any] = {
    "name": "case",
    "seed": 1,
    "space": {"elements": ["Ni", "Fe"]},
    "objective": {"quantity": "energy_per_atom", "direction": "minimize"},
    "mode": "rounds",
    "budget": {"labels": 6},
    "acquisition": {"use": "random", "initial_labels": 6, "batch_size": 6},
    "oracles": [{"use": "lennard_jones"}],
    "executor": {"use": "serial"},
    "tracking": {"use": "none"},
    "stopping": {"empty_rounds": 1},
}
_ALLOYS = [{"use": "random_alloy", "count": 8, "params": {"repeats": [1, 1, 2]}}]


def _campaign(folder: Path, **changes: Any) -> Campaign:
    document = {**_PLAIN, **changes}
    return Campaign(
        folder / "campaign", configs.validate(document, folder=folder, source=folder / "case.yaml")
    )


def _frame(
    edge: float = 2.9, symbols: str = "Ni Fe", shift: float = 0.0, gap: float = 0.5, rest: str = ""
) -> str:
    first, second = symbols.split()
    one, other = edge * shift, edge * (shift + gap)
    head = (
        f'Lattice="{edge} 0 0 0 {edge} 0 0 0 {edge}" Properties=species:S:1:pos:R:3 {rest}'.strip()
    )
    return f"2\n{head}\n{first} {one} {one} {one}\n{second} {other} {other} {other}\n"


def _pool(folder: Path, *frames: str, name: str = "p.extxyz") -> list[dict[str, Any]]:
    (folder / name).write_text("".join(frames))
    return [{"path": name}]


def _data(folder: Path, *frames: str) -> list[dict[str, Any]]:
    (folder / "d.extxyz").write_text("".join(frames))
    return [
        {
            "path": "d.extxyz",
            "columns": {"energy_per_atom": "energy_per_atom"},
            "oracle": "lennard_jones",
        }
    ]


def _alloy(symbols: str) -> Crystal:
    return supercell("bcc", (2, 1, 1), symbols.split())


def _told(condition: bool, found: object) -> str:
    return RIGHT if condition else f"found {found}"


def cases() -> Iterator[Case]:
    yield from _imports()
    yield from _sameness()
    yield from _models()
    yield from _meaning()
    yield from _shown()


def _case(
    kind: str, refusal: Sequence[str] | None = None
) -> Callable[[Callable[[Path], str]], Case]:
    return lambda run: Case(
        kind, (run.__doc__ or "").rstrip("."), run, tuple(refusal) if refusal is not None else None
    )


def _statuses(campaign: Campaign) -> Mapping[str, int]:
    table = campaign.candidates
    return {status: list(table["status"]).count(status) for status in sorted(set(table["status"]))}


def _imports() -> Iterator[Case]:
    @_case("imports")
    def screened(folder: Path) -> str:
        """A pool passes the screens of proposals."""
        bad = (_frame(symbols="Ni Cu"), _frame(2.95, gap=0.07), _frame(3.0, "Fe Fe"))
        campaign = _campaign(
            folder,
            candidate_pools=_pool(folder, _frame(), *bad),
            space={"elements": ["Ni", "Fe"], "max_fraction": 0.6},
        )
        campaign.run()
        return compared(_statuses(campaign), {"labelled": 1, "refused": 3})

    @_case("imports")
    def appended(folder: Path) -> str:
        """A crystal that is appended to a pool is the only one that is paid."""
        frames = [_frame(edge) for edge in (2.8, 2.9, 3.0)]
        _campaign(folder, candidate_pools=_pool(folder, *frames)).run()
        campaign = _campaign(folder, candidate_pools=_pool(folder, *frames, _frame(3.1)))
        campaign.run()
        return compared((len(campaign.labels), _statuses(campaign)), (4, {"labelled": 4}))

    @_case("imports", ("changes 1", "-4 eV/atom became", "--accept-changes"))
    def changed(folder: Path) -> str:
        """A number that was corrected in the data is told and has to be accepted."""
        first = _data(folder, _frame(rest="energy_per_atom=-4.0"))
        _campaign(folder, initial_data=first, generators=_ALLOYS).run()
        _campaign(
            folder,
            initial_data=_data(folder, _frame(rest="energy_per_atom=-4.2")),
            generators=_ALLOYS,
        ).run()
        return "taken without a word"

    @_case("imports", ("withdraws 1", "--accept-changes"))
    def withdrawn(folder: Path) -> str:
        """A row that is gone from the data is told and has to be accepted."""
        two = [_frame(edge, rest="energy_per_atom=-4.0") for edge in (2.8, 2.9)]
        _campaign(folder, initial_data=_data(folder, *two), generators=_ALLOYS).run()
        _campaign(folder, initial_data=_data(folder, two[0]), generators=_ALLOYS).run()
        return "taken without a word"

    @_case("imports")
    def accepted(folder: Path) -> str:
        """An accepted correction is the label from then on."""
        _campaign(
            folder,
            initial_data=_data(folder, _frame(rest="energy_per_atom=-9.0")),
            generators=_ALLOYS,
        ).run()
        campaign = _campaign(
            folder,
            initial_data=_data(folder, _frame(rest="energy_per_atom=-0.1")),
            generators=_ALLOYS,
        )
        campaign.run(accept_changes=True)
        values = list(campaign.labels["energy_per_atom (eV/atom)"])
        return _told(values.count(-0.1) == 1 and -9.0 not in values, values)

    @_case("imports", ("outside sanity", "d.extxyz"))
    def insane(folder: Path) -> str:
        """A total energy among those per atom lies outside the oracle's window."""
        data = _data(
            folder, _frame(rest="energy_per_atom=-4.0"), _frame(3.0, rest="energy_per_atom=-71.2")
        )
        oracles = [{"use": "lennard_jones", "sanity": {"energy_per_atom": [-10, 10]}}]
        _campaign(folder, initial_data=data, generators=_ALLOYS, oracles=oracles).run()
        return "taken without a word"

    @_case("imports", ("d.extxyz", "several values"))
    def doubled(folder: Path) -> str:
        """Two values of one crystal, the second with its origin shifted."""
        data = _data(
            folder,
            _frame(rest="energy_per_atom=-4.0"),
            _frame(shift=0.2, rest="energy_per_atom=-4.4"),
        )
        _campaign(folder, initial_data=data, generators=_ALLOYS).run()
        return "taken without a word"

    @_case("imports")
    def measured_and_proposed(folder: Path) -> str:
        """One file as initial data and as pool: nothing is measured again."""
        frames = [_frame(edge, rest="energy_per_atom=-4.0") for edge in (2.8, 2.9)]
        campaign = _campaign(
            folder, initial_data=_data(folder, *frames), candidate_pools=[{"path": "d.extxyz"}]
        )
        campaign.run()
        return compared(list(campaign.labels["source"]), ["d.extxyz", "d.extxyz"])

    @_case("imports", ("p.extxyz", "structure 2"))
    def half_bad(folder: Path) -> str:
        """A pool whose second crystal is broken is refused before anything runs."""
        _campaign(folder, candidate_pools=_pool(folder, _frame(), _frame(symbols="Ni X"))).run()
        return "taken without a word"

    @_case("imports", ("p.extxyz", "there is no"))
    def gone(folder: Path) -> str:
        """A pool that is not there"""
        _campaign(folder, candidate_pools=[{"path": "p.extxyz"}]).run()
        return "taken without a word"

    yield from (
        screened,
        appended,
        changed,
        withdrawn,
        accepted,
        insane,
        doubled,
        measured_and_proposed,
        half_bad,
        gone,
    )


def _sameness() -> Iterator[Case]:
    plain = Crystal(np.eye(3) * 2.9, np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]), np.array([28, 26]))
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    rattle = np.random.default_rng(1).normal(size=(2, 3)) * 0.03 / 2.9
    copies = {
        "a rattled copy (0.03 angstrom)": Crystal(
            plain.lattice, plain.fractional + rattle, plain.numbers
        ),
        "a turned copy": Crystal(plain.lattice @ turn, plain.fractional, plain.numbers),
        "a supercell": Crystal.from_atoms(plain.atoms.repeat((2, 1, 1))),
        "another cell": Crystal(
            np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]]) @ plain.lattice,
            np.array([[0.0, 0, 0], [0.5, 0, 0.5]]),
            plain.numbers,
        ),
        "atoms in another order and place": Crystal(
            plain.lattice, plain.fractional[::-1] + 0.21, plain.numbers[::-1]
        ),
        "a strained copy (1 %)": Crystal(
            plain.lattice * np.array([1.01, 1.0, 1.0]), plain.fractional, plain.numbers
        ),
    }
    others = {
        "the elements exchanged by another": Crystal(
            plain.lattice, plain.fractional, np.array([28, 27])
        ),
        "a distorted copy": Crystal(
            plain.lattice, plain.fractional + np.array([[0.0, 0, 0], [0.12, 0, 0]]), plain.numbers
        ),
        "a cell stretched by a tenth": Crystal(
            plain.lattice * np.array([1.1, 1.0, 1.0]), plain.fractional, plain.numbers
        ),
    }
    for wanted, group in ((True, copies), (False, others)):
        for name, crystal in group.items():

            def run(folder: Path, crystal: Crystal = crystal, wanted: bool = wanted) -> str:
                del folder
                index = KeyIndex(Matcher())
                index.add("plain", equivalence_key(plain))
                is_found = "plain" in index.near(equivalence_key(crystal)) and Matcher().is_same(
                    plain, crystal
                )
                return compared(is_found, wanted)

            yield Case("sameness", name, run)


def _models() -> Iterator[Case]:
    for factor, shift in ((1e-9, 0.0), (1e-3, 0.0), (1e6, 0.0), (1.0, 1e3), (1.0, -50.0)):

        def run(folder: Path, factor: float = factor, shift: float = shift) -> str:
            scaled, plain = (
                chosen(folder / name, *change, labels=14)
                for name, change in (("s", (factor, shift)), ("p", (1.0, 0.0)))
            )
            return compared(scaled, plain)

        yield Case(
            "scale and elements",
            f"labels times {factor:g} plus {shift:g} make the same choices",
            run,
        )

    @_case("scale and elements")
    def unseen(folder: Path) -> str:
        """An element without labels is more uncertain than those with labels"""
        del folder
        known = [
            _alloy(names)
            for names in (
                "Ni Ni Ni Ni",
                "Ni Ni Ni Fe",
                "Ni Ni Fe Fe",
                "Ni Fe Fe Fe",
                "Fe Fe Fe Fe",
                "Ni Fe Ni Fe",
            )
        ]
        plugin = PluginSpec(group="surrogates", use="gp", elements=("Ni", "Fe", "Cr", "Co"))
        fitted = plugins.build(plugin).fit(
            [Candidate(crystal) for crystal in known], -4.0 - 0.01 * np.arange(len(known))
        )
        asked = [
            Candidate(_alloy(names)) for names in ("Ni Fe Fe Ni", "Cr Cr Cr Cr", "Co Co Co Co")
        ]
        spread = fitted.posterior(asked).variance.reshape(-1).sqrt().tolist()
        return _told(min(spread[1:]) > 3 * spread[0], spread)

    yield unseen


def _meaning() -> Iterator[Case]:
    oracle = """
from campaign.types import Evaluation, Observation, Quantity

class Mine:
    quantities = (Quantity("energy_per_atom", "eV/atom"),)

    def evaluate(self, crystal):
        return Evaluation(observations=(Observation("energy_per_atom", -1.0 * len(crystal), "eV/atom"),))
"""  # noqa: E501

    @_case("meaning is hashed", ("code", "Mine"))
    def edited(folder: Path) -> str:
        """An oracle's code that was edited between two sessions is told."""
        (folder / "my_oracle.py").write_text(oracle)
        settings: dict[str, Any] = {"generators": _ALLOYS, "oracles": [{"use": "my_oracle:Mine"}]}
        _campaign(folder, **settings).run()
        (folder / "my_oracle.py").write_text(oracle.replace("-1.0 *", "-2.0 *"))
        _campaign(folder, **settings, budget={"labels": 7}).run()
        return "taken without a word"

    @_case("meaning is hashed", ("oracles",))
    def another_epsilon(folder: Path) -> str:
        """A parameter that changes what labels mean is refused."""
        _campaign(folder, generators=_ALLOYS).run()
        changed = [{"use": "lennard_jones", "params": {"epsilon": 0.7}}]
        _campaign(folder, generators=_ALLOYS, oracles=changed, budget={"labels": 7}).run()
        return "taken without a word"

    yield from (edited, another_epsilon)


def _shown() -> Iterator[Case]:
    @_case("what is shown")
    def all_of_a_pool(folder: Path) -> str:
        """Of 2,300 crystals of a pool each can be chosen."""
        frames = [_frame(2.5 + 0.0005 * row, "Ni Fe") for row in range(2300)]
        (found,) = survey(_campaign(folder, candidate_pools=_pool(folder, *frames)).loaded)
        return compared(len(found.crystals), 2300)

    @_case("what is shown")
    def names(folder: Path) -> str:
        """Names and notes of a source travel with its candidates."""
        campaign = _campaign(
            folder,
            candidate_pools=_pool(folder, _frame(rest='material_id=mp-7 note="from a paper"')),
        )
        campaign.run()
        (identity,) = campaign.labels["candidate"]
        facts = campaign.state().candidates[identity].facts
        return compared(dict(facts), {"material_id": "mp-7", "note": "from a paper"})

    @_case("what is shown")
    def passing(folder: Path) -> str:
        """What passes the screens is told before anything runs."""
        frames = (_frame(), _frame(3.0, "Ni Cu"))
        (found,) = survey(_campaign(folder, candidate_pools=_pool(folder, *frames)).loaded)
        return _told(
            "2 crystals, 1 pass the screens, 1 refused by composition" in str(found), found
        )

    @_case("what is shown")
    def all_refused(folder: Path) -> str:
        """Where all proposals are refused it is told by whom."""
        reason = _campaign(folder, generators=_ALLOYS, screens={"min_distance": 9.0}).run()
        return _told("refused" in reason and "by distance" in reason, reason)

    yield from (all_of_a_pool, names, passing, all_refused)
