"""Situations from public bug reports, kept as a folder of cases: each is run by its own script in a
copy, and judged by a predicate here.

A case NN is a folder with ``run.sh``, which asks the command for what a user would, and
``expect.txt``, of which the predicate is written.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from ast import literal_eval
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.record import Row
from campaign.api import Campaign
from campaign.errors import InputError
from campaign.reading.structures import read_structures

LIMIT = 900.0
_TRACEBACK = "Traceback (most recent call last)"
_COMMAND = """#!/bin/bash
exec > >(tee -a {log}) 2>&1
exec {real} "$@"
"""


@dataclass(frozen=True)
class Ran:
    """What a case's script left: its working folder, and what it printed."""

    folder: Path
    text: str

    def parts(self) -> dict[str, str]:
        """What stands below each line ``--- name``."""
        found = re.split(r"^--- (.*)$", self.text, flags=re.MULTILINE)
        return dict(zip(found[1::2], found[2::2], strict=True))

    def refuses(self, *words: str) -> bool:
        return is_refusal(self.text, *words)

    def campaign(self, name: str = "case") -> Campaign:
        return Campaign.open(self.folder / "campaigns" / name)

    def labels(self, quantity: str) -> list[tuple[str, str, float]]:
        """Formula, source and value of each label."""
        table = self.campaign().labels
        column = next(name for name in table.columns if name.startswith(f"{quantity} ("))
        return list(zip(table["formula"], table["source"], table[column], strict=True))

    def numbers(self, pattern: str) -> list[float]:
        return [float(found) for found in re.findall(pattern, self.text)]


Judge = Callable[[Ran], str]
"""``right``, ``refused`` or what is wrong."""

RIGHT, REFUSED = "right", "refused"


def is_refusal(text: str, *words: str) -> bool:
    """A message and an exit code other than zero, and all of the words."""
    plain = " ".join(text.split())
    return (
        "error:" in plain
        and re.search(r"\[?exit [1-9]", plain) is not None
        and all(word in plain for word in words)
    )


def is_done(text: str) -> bool:
    return re.search(r"\[?exit 0", text) is not None and not re.search(r"\[?exit [1-9]", text)


def _either(
    right: bool, refused: bool = False, told: str = "neither right nor refused by name"
) -> str:
    return RIGHT if right else REFUSED if refused else told


def _unknown_occupancy(ran: Ran) -> str:
    return _either(
        {formula for formula, _, _ in ran.labels("energy_per_atom")} == {"Fe1Ni1"},
        ran.refuses("pool.cif", "site"),
    )


def _dummies(ran: Ran) -> str:
    named = all(file in ran.text for file in ("cifs/b.cif", "d.extxyz, structure 1"))
    return _either(
        False,
        named and ran.text.count("'X' is no element") == 3 and ran.text.count("[exit 2]") == 3,
    )


def _marks(ran: Ran) -> str:
    return _either(
        all(is_done(part) and "Fe1Ni1" in part for part in ran.parts().values())
        and len(ran.parts()) == 4
    )


def _one_bad_of_many(ran: Ran) -> str:
    parts, wanted = ran.parts(), {"a": "a/2.cif", "b": "b.csv, row 3", "c": "c/1.cif"}
    return _either(False, all(is_refusal(parts[name], place) for name, place in wanted.items()))


def _of_imports(value: float) -> Judge:
    def judge(ran: Ran) -> str:
        found = [
            label for _, source, label in ran.labels("energy_per_atom") if source != "campaign"
        ]
        return _either(
            bool(found) and all(abs(label - value) < 1e-6 for label in found),
            ran.refuses("eV/atom"),
        )

    return judge


def _bought_once(ran: Ran) -> str:
    calls = (ran.folder / "calls.txt").read_text().split()
    return _either(len(calls) == len(set(calls)) == 4 and is_done(ran.text))


def _screened_pool(ran: Ran) -> str:
    table = ran.campaign().candidates
    refused = sorted(table.loc[table["status"] == "refused", "screen"])
    return _either(
        list(table["status"]).count("labelled") == 1
        and refused == ["composition", "composition", "distance", "duplicate"]
    )


def _tightened(ran: Ran) -> str:
    labels = ran.campaign().labels
    later = labels.loc[labels["round"] >= 1, "formula"]
    shares = [_share(formula, "Fe") for formula in later]
    return _either(bool(shares) and max(shares) <= 0.5 and is_done(ran.text))


def _share(formula: str, symbol: str) -> float:
    counts = {name: int(count) for name, count in re.findall(r"([A-Z][a-z]?)(\d+)", formula)}
    return counts.get(symbol, 0) / sum(counts.values())


def _cells_of_two(ran: Ran) -> str:
    table = ran.campaign().candidates
    return _either(
        list(table["status"]).count("labelled") == 2
        and list(table["screen"]).count("duplicate") == 3
    )


def _answers(ran: Ran) -> str:
    parts = ran.parts()
    taken = all("7.25" in parts[name] for name in ("a", "b"))
    told = all(
        "7.25" in parts[name] or "a question stays open" in parts[name] for name in ("c", "d")
    )
    return _either(taken and told)


def _scales(ran: Ran) -> str:
    chosen = re.findall(r"best/scale (\S+) .* first chosen (\[.*\])", ran.text)
    return _either(len(chosen) == 6 and len(set(chosen)) == 1)


def _constant(ran: Ran) -> str:
    return _either(len(ran.parts()) == 3 and all(is_done(part) for part in ran.parts().values()))


def _handedness(ran: Ran) -> str:
    statuses = list(ran.campaign().candidates["status"])
    return _either(
        statuses.count("labelled") == 2
        and statuses.count("refused") == 2
        and "no failures" in ran.text
    )


def _rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("│")]


def _element_order(ran: Ran) -> str:
    parts = ran.parts()
    truth, *others = (parts[name] for name in parts if not name.startswith(("a:", "oracle check")))
    bare = next(part for name, part in parts.items() if name.startswith("a:"))
    is_same = len(others) == 4 and all(_rows(other) == _rows(truth) for other in others)
    return _either(is_same and is_refusal(bare, "FeNiCr.meam", "does not say which element"))


def _potential_files(ran: Ran) -> str:
    parts = ran.parts()
    is_same = all(
        _rows(parts[name]) == _rows(parts["plain.eam.alloy"]) != []
        for name in ("a.eam.alloy", "b.eam.alloy")
    )
    return _either(
        is_same and all(is_refusal(part, name) for name, part in parts.items() if name[0] in "cdef")
    )


def _wrong_units(ran: Ran) -> str:
    row = next((line for line in ran.text.splitlines() if "cohesive energies" in line), "")
    return _either(False, "failed" in row and "not in eV/atom" in row and "[exit 2]" in ran.text)


def _surroundings(ran: Ran) -> str:
    parts = ran.parts()
    wrong = [
        name
        for name, part in parts.items()
        if not ("exit 0" in part and "budget spent: 2 labels" in part)
    ]
    named = all("exit 4" in parts[name] and "TMPDIR" in parts[name] for name in wrong)
    return _either(
        len(parts) == 8 and not wrong,
        named,
        f"neither as without nor refused by name: {', '.join(wrong)}",
    )


def _deleted_runs(ran: Ran) -> str:
    parts = ran.parts().values()
    return _either(
        all(
            "exit 0" in p and "was deleted; a new one begins" in p and "largest step (1,)" in p
            for p in parts
        )
        and len(parts) == 2
    )


def _metrics(ran: Ran) -> str:
    return _either("exit 0" in ran.text and "nan [] huge []" in ran.text)


def _evaluated(ran: Ran) -> str:
    parts = ran.parts()
    match = all(
        "match rate │ 1" in " ".join(parts[n].split()) and "volume 24.000" in parts[n]
        for n in ("b", "d")
    )
    three = "['Fe1Ni1', 'Ni2', 'Fe2']" in parts["c"]
    return _either(
        is_refusal(parts["a"], "a.cif", "disordered")
        and match
        and three
        and "[exit 0]" in parts["e"]
    )


def _encodings(ran: Ran) -> str:
    parts = ran.parts()
    refused = all(
        "exit 2" in parts[name] for name in ("latin1", "utf16", "nested", "mapping", "array", "cut")
    )
    return _either(
        refused
        and all("exit 0" in parts[name] or "exit 2" in parts[name] for name in ("csv", "d"))
        and _TRACEBACK not in ran.text
    )


def _clock(ran: Ran) -> str:
    ahead, back = (
        next(part for name, part in ran.parts().items() if name.startswith(kind))
        for kind in ("a:", "b:")
    )
    took = re.search(r"took (\d+) s", back)
    is_killed = "no answer within 10 s" in back and took is not None and int(took[1]) < 60
    return _either("exit 0" in ahead and "labels 3 failures []" in ahead and is_killed)


def _symmetric(ran: Ran) -> str:
    parts = ran.parts()
    wanted = {"spinel": 227, "nd": 139, "sn": 187, "conventional": 227}
    made = all(
        "exit 0" in parts[name] and f", {group})" in parts[name] for name, group in wanted.items()
    )
    return _either(
        made and "exit 2" in parts["impossible"] and "no Wyckoff positions" in parts["impossible"]
    )


def _training(ran: Ran) -> str:
    parts = ran.parts()
    trained = all(
        "exit 0" in parts[name] and "trained on" in parts[name] for name in ("good", "a", "b", "c")
    )
    told = "is it in another unit" in parts["d"] and "exit 2" in parts["f"] and "pbc" in parts["f"]
    return _either(
        trained and told and is_refusal("error: " + parts["g"], "structure", "not finite")
    )


def _moved(ran: Ran) -> str:
    parts = ran.parts()
    views = [
        part
        for name, part in parts.items()
        if name.split()[0] in ("status", "report", "export", "list", "compare", "explain")
    ]
    hull = next(part for name, part in parts.items() if name.startswith("hull"))
    views_work = len(views) == 6 and all("[exit 0]" in part for part in views)
    is_told = "[exit 0]" in hull or is_refusal(hull, "references")
    return _either(
        views_work and is_told and "pot.eam.alloy" in parts["run"] and "[exit 2]" in parts["run"]
    )


def _links(ran: Ran) -> str:
    readable = [line for line in ran.text.splitlines() if line.startswith("disk/")]
    return _either("[exit 0]" in ran.text and not readable)


def _poscar(ran: Ran) -> str:
    lines = [line for line in ran.text.splitlines() if line.strip()]
    atoms, species, counts, moments = (
        literal_eval(lines[0]),
        lines[1].split(),
        list(map(int, lines[2].split())),
        literal_eval(lines[3]),
    )
    written = [symbol for symbol, count in zip(species, counts, strict=True) for _ in range(count)]
    pairs = [
        item.split("*")
        for item in next(m for m in moments if "MAGMOM" in m).partition("=")[2].split()
    ]
    magnetic = [float(value) for count, value in pairs for _ in range(int(count))]
    potentials = [name.partition("_")[0] for name in literal_eval(lines[4])]
    is_same = (
        written == atoms
        and magnetic == [{"Fe": 2.2, "Ni": 0.6}[symbol] for symbol in atoms]
        and potentials == species
    )
    return _either(is_same)


def _stress(ran: Ran) -> str:
    found = ran.numbers(r"difference (\S+)")
    return _either(len(found) == 2 and max(found) < 1e-4)


def _gaps(ran: Ran) -> str:
    return _either(is_done(ran.text), ran.refuses("d.csv", "row"))


def _locked(ran: Ran) -> str:
    waits = "[exit 0] oreloop run" in ran.text.partition("lock given back")[2]
    return _either(
        waits
        and "labels 12 distinct 12" in ran.text
        and ("[exit 4]" not in ran.text or "database" in ran.text)
    )


_ATOMS = {"b1": 8, "b2": 8, "b3": 8, "b4": 8, "b5": 8, "b6": 8, "c": 2, "d": 2, "e": 4, "f": 6}
"""Of bismuth (d) two: the group holds the inversion."""


def _settings(ran: Ran) -> str:
    for name, n in _ATOMS.items():
        try:
            found = [len(entry.crystal) for entry in read_structures(ran.folder / f"{name}.cif")]
        except InputError as error:
            if "has several settings" not in error.message:
                return f"{name}: {error.message}"
            continue
        if found != [n]:
            return f"{name}: {found} atoms"
    return _either(ran.labels("energy_per_atom")[0][0] == "Si8")


def _shadows(ran: Ran) -> str:
    parts = ran.parts()
    wrong = [
        name
        for name, part in parts.items()
        if "exit 0" not in part and not ("exit 2" in part and "which it would shadow" in part)
    ]
    return _either(len(parts) == 8 and "exit 0" in parts["density"] and not wrong)


def _exported(ran: Ran) -> str:
    parts = ran.parts()
    return _either(len(parts) == 11 and all("exit 0" in part for part in parts.values()))


def _large_pool(ran: Ran) -> str:
    found = re.search(
        r"best label (\S+) best there is (\S+) labels among the first 300: (\d+)", ran.text
    )
    return _either(found is not None and int(found[3]) > 0 and found[1] == found[2])


JUDGES: Mapping[str, Judge] = {
    "01": _unknown_occupancy,
    "03": lambda ran: _either(False, ran.refuses("pool.cif", "'Va' is no element")),
    "05": _dummies,
    "06": _marks,
    "07": _one_bad_of_many,
    "09": _of_imports(-4.45),
    "10": lambda ran: _either(
        False,
        ran.refuses("d.csv, row 1", "row 5", "is no value") and ran.text.count("[exit 2]") == 2,
    ),
    "12": _of_imports(-4.3),
    "13": lambda ran: _either(False, ran.refuses("levels are never mixed", "from_oracle")),
    "15": _bought_once,
    "16": lambda ran: _either(False, ran.refuses("changes 1", "withdraws 1", "--accept-changes")),
    "17": _screened_pool,
    "19": _tightened,
    "21": _cells_of_two,
    "23": _answers,
    "25": _scales,
    "26": _constant,
    "27": _handedness,
    "29": _element_order,
    "30": _potential_files,
    "31": _wrong_units,
    "33": _surroundings,
    "34": _deleted_runs,
    "35": _metrics,
    "37": _evaluated,
    "41": _encodings,
    "42": lambda ran: _either(False, ran.refuses("began on another problem")),
    "43": _clock,
    "44": _symmetric,
    "45": _training,
    "46": _moved,
    "47": _links,
    "48": _poscar,
    "50": _stress,
    "52": _gaps,
    "53": _locked,
    "54": _settings,
    "55": _shadows,
    "56": _exported,
    "58": _large_pool,
}


def shared(cases: Path, only: Sequence[str] = ()) -> Iterator[Row]:
    """One row for each case of the folder."""
    for case in sorted(path for path in cases.iterdir() if (path / "run.sh").exists()):
        if not only or case.name in only:
            yield _row(case)


def _row(case: Path) -> Row:
    began = time.monotonic()
    title = (case / "expect.txt").read_text().partition("\n")[0].removeprefix("Source: ")
    with tempfile.TemporaryDirectory(prefix="case-") as home:
        ran, commands, is_late = _run(case, Path(home))
        outcome, told = "hang", f"more than {LIMIT:g} s"
        if not is_late:
            outcome, told = _judged(case.name, ran)
        if _TRACEBACK in commands:
            outcome, told = "traceback", commands[commands.index(_TRACEBACK) :][-600:]
    return {
        "case": case.name,
        "kind": title[:120],
        "outcome": outcome,
        "told": told,
        "seconds": round(time.monotonic() - began, 1),
    }


def _judged(name: str, ran: Ran) -> tuple[str, str]:
    try:
        found = JUDGES[name](ran)
    except Exception as error:
        found = f"cannot be judged: {type(error).__name__}: {error}"
    told = (
        ""
        if found == RIGHT
        else next((line for line in ran.text.splitlines() if line.startswith("error:")), "")
    )
    return (
        (found, told[:200])
        if found in (RIGHT, REFUSED)
        else ("wrong", f"{found}\n{ran.text[-1500:]}")
    )


def _run(case: Path, home: Path) -> tuple[Ran, str, bool]:
    """Run a copy of the case. What it printed, what the command alone printed, and whether it took
    too long.
    """
    copy, bin_folder, log = home / case.name, home / "bin", home / "commands.txt"
    shutil.copytree(case, copy)
    shutil.copy(case.parent / "common.sh", home / "common.sh")
    (copy / "work").mkdir()
    bin_folder.mkdir()
    log.touch()
    real = Path(sys.executable).parent
    for name, text in (
        ("oreloop", _COMMAND.format(log=log, real=real / "oreloop")),
        ("python", f'#!/bin/bash\nexec {sys.executable} "$@"\n'),
    ):
        (bin_folder / name).write_text(text)
        (bin_folder / name).chmod(0o755)
    surroundings: dict[str, Any] = {
        **os.environ,
        "ORELOOP_BIN": str(bin_folder),
        "CASE_WORK": str(copy / "work"),
    }
    printed = home / "printed.txt"
    with printed.open("wb") as file:
        process = subprocess.Popen(
            ["bash", str(copy / "run.sh")],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=surroundings,
            cwd=home,
            start_new_session=True,
        )
        try:
            process.wait(LIMIT)
            is_late = False
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            is_late = True
    ran = Ran(copy / "work", printed.read_text(errors="replace").replace(str(home), ""))
    return ran, log.read_text(errors="replace"), is_late
