"""The user's own code is part of what a campaign, a backtest and a study mean: edited between two
sessions, it is noticed.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support import SMALL, load, merged

from campaign.api import Campaign
from campaign.backtest import config as backtests
from campaign.code import check_of_oreloop, code_key, modules, of_oreloop
from campaign.config import loaded as configs
from campaign.errors import InputError, SurroundingsError
from campaign.protocols import PluginSpec
from campaign.study import config as studies
from campaign.study import run as studying

ORACLE = """
from campaign.types import Evaluation, ENERGY_PER_ATOM
from {helper} import CONSTANT

class {name}:
    quantities = (ENERGY_PER_ATOM,)

    def evaluate(self, crystal):
        return Evaluation.single(ENERGY_PER_ATOM, CONSTANT * len(set(crystal.symbols)) - crystal.fractional.sum() * 1e-3)
"""  # noqa: E501


def spec(folder: Path, use: str) -> PluginSpec:
    return PluginSpec(group="oracles", use=use, module_folder=str(folder))


def test_code_that_settings_name_counts_too(tmp_path: Path) -> None:
    (tmp_path / "inner_mine.py").write_text("from inner_helper import x\nclass Inner: ...\n")
    (tmp_path / "inner_helper.py").write_text("x = 1\n")
    members = [
        {"use": "lennard_jones"},
        {"use": "inner_mine:Inner", "params": {"calculator": "ase.calculators.lj:LennardJones"}},
    ]
    committee = PluginSpec(
        group="oracles", use="committee", params={"members": members}, module_folder=str(tmp_path)
    )
    assert sorted(modules(committee)) == ["inner_helper", "inner_mine"]
    before = code_key(committee)
    (tmp_path / "inner_helper.py").write_text("x = 2\n")
    assert before != code_key(committee) != ""
    assert (
        code_key(replace(committee, params={"members": members[:1], "title": "plain: text"})) == ""
    )


def test_other_code_or_engines_are_told_by_name() -> None:
    here = of_oreloop()
    check_of_oreloop(here, "a worker")
    check_of_oreloop({}, "a worker")
    check_of_oreloop(
        of_oreloop(with_engines=False), "a worker of an interpreter with engines of its own"
    )
    with pytest.raises(
        SurroundingsError,
        match=r"a worker on .* runs other code than the driver: oracles/static.py \(.*, not "
        r"0123\)\n",
    ):
        check_of_oreloop({**here, "oracles/static.py": "0123"}, "a worker")
    with pytest.raises(
        SurroundingsError,
        match=r"driver: ase \([\d.]+, not 3\.0\), oracles/new.py \(none, not 12\)\n",
    ):
        check_of_oreloop({**here, "ase": "3.0", "oracles/new.py": "12"}, "a worker")
    with pytest.raises(SurroundingsError, match=rf" and {len(here) - 5} more\n"):
        check_of_oreloop(dict.fromkeys(here, "other"), "a worker")


@pytest.mark.parametrize("executor", ["serial", "ray"])
def test_a_worker_with_another_copy_of_oreloop_labels_nothing(
    tmp_path: Path, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {**of_oreloop(), "oracles/lennard_jones.py": "another"}
    monkeypatch.setattr("campaign.config.loaded.of_oreloop", lambda **_: other)
    campaign = Campaign(tmp_path / "campaign", load(tmp_path, executor={"use": executor}))
    with pytest.raises(
        SurroundingsError,
        match=r"oracle lennard_jones on .* runs other code than the driver: "
        r"oracles/lennard_jones.py",
    ):
        campaign.run()
    assert not campaign.state().labels


def test_code_is_the_module_and_what_it_imports_from_beside_it(tmp_path: Path) -> None:
    (tmp_path / "package" / "deep").mkdir(parents=True)
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "mine.py").write_text(
        "from .deep import numbers\nimport helper, math\nclass Mine: ...\n"
    )
    (tmp_path / "package" / "deep" / "__init__.py").write_text("from .numbers import pi\n")
    (tmp_path / "package" / "deep" / "numbers.py").write_text("pi = 3\n")
    (tmp_path / "helper.py").write_text("import unrelated_name_that_is_not_there\nx = 1\n")
    (tmp_path / "other.py").write_text("x = 1\n")
    before = code_key(spec(tmp_path, "package.mine:Mine"))
    assert before
    (tmp_path / "other.py").write_text("x = 2\n")
    (tmp_path / "helper.py").write_text(
        "import unrelated_name_that_is_not_there\r\n\r\nx = 1   \r\n"
    )
    assert code_key(spec(tmp_path, "package.mine:Mine")) == before, (
        "another module and blanks do not count"
    )
    for name, text in (
        ("package/deep/numbers.py", "pi = 4\n"),
        ("helper.py", "x = 2\n"),
        ("package/__init__.py", "y = 1\n"),
    ):
        (tmp_path / name).write_text(text)
        after = code_key(spec(tmp_path, "package.mine:Mine"))
        assert after != before, name
        before = after
    assert code_key(spec(tmp_path, "lennard_jones")) == "", "an installed plug-in has a version"
    assert code_key(spec(tmp_path, "not_there:Mine")) == ""


def written(folder: Path, name: str) -> dict[str, object]:
    (folder / f"helper_{name}.py").write_text("CONSTANT = -1.0\n")
    (folder / f"{name}.py").write_text(ORACLE.format(helper=f"helper_{name}", name="Mine"))
    return merged(SMALL, {"oracles": [{"use": f"{name}:Mine"}], "budget": {"labels": 9}})  # type: ignore[no-any-return]


def test_a_campaign_asks_before_it_goes_on_with_other_code(tmp_path: Path) -> None:
    document = written(tmp_path, "asked_before")

    def campaign(labels: int) -> Campaign:
        changed = merged(document, {"budget": {"labels": labels}})
        return Campaign(
            tmp_path / "here",
            configs.validate(changed, folder=tmp_path, source=tmp_path / "small.yaml"),
        )

    campaign(9).run()
    campaign(10).run()
    (tmp_path / "helper_asked_before.py").write_text("CONSTANT = -2.0\n")
    with pytest.raises(InputError, match=r"the code of oracles\.Mine") as error:
        campaign(11).run()
    assert "--accept-changes" in error.value.hint
    campaign(11).run(accept_changes=True)
    revision = campaign(11).state().config
    assert revision is not None
    assert revision.accepted == ("budget", "the code of oracles.Mine")
    campaign(12).run()


def study_of(folder: Path, trials: int = 2) -> studies.Study:
    document = {
        "name": "study",
        "trials": trials,
        "startup": 1,
        "pruner": "none",
        "value": {"use": "backtest", "path": "bt.yaml", "strategy": "model"},
        "space": {"acquisition.exploration": {"use": "float", "low": 0.0, "high": 0.5}},
        "executor": {"use": "serial"},
    }
    return studies.validate(document, folder=folder, source=folder / "study.yaml")


BACKTEST = """
name: bt
labels: {labels}
seeds: 1
campaign:
  space: {{elements: [Ni, Fe]}}
  objective: {{quantity: energy_per_atom, direction: minimize}}
  generators: [{{use: random_alloy, count: 10, params: {{repeats: [1, 1, 2]}}}}]
  acquisition: {{initial_labels: 4, batch_size: 2}}
  {pool}
  oracles: [{{use: "in_a_study:Mine"}}]
strategies:
  random: {{acquisition: {{use: random}}}}
  model: {{surrogate: {{use: gp}}, acquisition: {{use: greedy_mean}}}}
"""


def test_a_study_refuses_another_problem(tmp_path: Path) -> None:
    """Its backtest's YAML, a file that this names, or code: each is a part of what the trials'
    values mean.
    """
    written(tmp_path, "in_a_study")
    pool = "candidate_pools: [{path: pool.extxyz}]"
    structure = (
        '2\nLattice="2.9 0 0 0 2.9 0 0 0 2.9" Properties=species:S:1:pos:R:3 pbc="T T '
        'T"\nNi 0 0 0\nFe 1.45 1.45 1.45\n'
    )
    (tmp_path / "pool.extxyz").write_text(structure)
    yaml = tmp_path / "bt.yaml"
    yaml.write_text(BACKTEST.format(labels=6, pool=pool))
    place = tmp_path / "out"
    studying.opened(study_of(tmp_path), place)
    yaml.write_text("# a comment\n" + BACKTEST.format(labels=6, pool=pool))
    studying.opened(study_of(tmp_path, 4), place)

    def refused() -> None:
        with pytest.raises(InputError, match=r"began on another problem: bt\.yaml"):
            studying.opened(study_of(tmp_path, 4), place)

    yaml.write_text(BACKTEST.format(labels=5, pool=pool))
    refused()
    yaml.write_text(BACKTEST.format(labels=6, pool=pool))
    (tmp_path / "pool.extxyz").write_text(structure.replace("2.9 0 0", "3.0 0 0", 1))
    refused()
    (tmp_path / "pool.extxyz").write_text(structure)
    (tmp_path / "helper_in_a_study.py").write_text("CONSTANT = -3.0\n")
    refused()


def test_runs_of_a_backtest_are_named_by_files_and_code(tmp_path: Path) -> None:
    from campaign.backtest.replay import _path

    written(tmp_path, "in_a_study")
    (tmp_path / "bt.yaml").write_text(BACKTEST.format(labels=6, pool=""))

    def named() -> Path:
        return _path(backtests.read(tmp_path / "bt.yaml"), tmp_path, "model", 0)

    before = named()
    assert named() == before
    (tmp_path / "helper_in_a_study.py").write_text("CONSTANT = -4.0\n")
    assert named() != before


@pytest.fixture(autouse=True)
def _forget_modules() -> None:
    for name in [name for name in sys.modules if name.endswith(("asked_before", "in_a_study"))]:
        del sys.modules[name]
