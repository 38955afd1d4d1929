"""Ask and tell: durable as everything else, from several processes, in any order, and every
decision replays.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import SMALL, merged
from typer.testing import CliRunner

import oreloop
from campaign.cli import app
from campaign.decide import fit
from campaign.decide.replay import replay
from campaign.ledger.state import LabelRecord
from oreloop import Campaign, Failure, InputError, Observation

ASKED = {
    "oracles": [
        {
            "use": "ask_tell",
            "params": {"quantities": {"hardness": "GPa"}},
            "sanity": {"hardness": [0, 100]},
        }
    ],
    "objective": {"quantity": "hardness", "direction": "maximize"},
    "acquisition": {"initial_labels": 4},
}


@pytest.fixture
def asked(tmp_path: Path) -> Callable[..., Campaign]:
    def make(**changes: Any) -> Campaign:
        return Campaign.create(tmp_path / "campaign", merged(merged(SMALL, ASKED), changes))

    return make


def hardness(question: oreloop.OpenQuestion) -> float:
    return float(question.crystal.numbers.mean())


def test_a_notebook_shows_where_a_campaign_stands(tmp_path: Path) -> None:
    campaign = Campaign.create(tmp_path / "<b>", merged(SMALL, ASKED))
    assert campaign._repr_html_() == escape(f"<campaign {campaign.folder}>, not begun")
    campaign.ask(2)
    shown = campaign._repr_html_()
    assert "<tr><th>labels</th><td>0 of " in shown
    assert "<b>" not in shown


def test_a_campaign_is_driven_by_asking_and_telling(asked: Callable[..., Campaign]) -> None:
    campaign = asked()
    for n in (4, 3, 5):
        questions = campaign.ask(n)
        assert len({question.candidate for question in questions}) == n
        for question in reversed(questions):
            told = campaign.tell(question, {"hardness": hardness(question)})
            assert isinstance(told, LabelRecord)
            assert told.values["hardness"] == hardness(question)
    assert campaign.pending == []
    assert [record.asked for record in campaign.state().rounds] == [4, 3, 5]
    assert questions[0].mean is not None
    for index, record in enumerate(campaign.state().rounds):
        assert record.decided is not None
        assert replay(campaign, index) == record.decided.choices


def test_a_replay_takes_the_threads_of_the_campaign(
    asked: Callable[..., Campaign], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    campaign, taken = asked(), []
    for question in campaign.ask(4):
        campaign.tell(question, {"hardness": hardness(question)})
    campaign.ask(2)
    fitting = fit.fit
    monkeypatch.setattr(
        fit, "fit", lambda *given: taken.append(torch.get_num_threads()) or fitting(*given)
    )
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        replay(campaign, 1)
        assert (taken, torch.get_num_threads()) == (
            [campaign.loaded.config.executor.threads],
            before + 1,
        )
    finally:
        torch.set_num_threads(before)


def test_open_questions_are_not_asked_again_and_wait_for_ever(
    asked: Callable[..., Campaign],
) -> None:
    campaign = asked()
    first = campaign.ask(4)
    second = campaign.ask(3)
    assert not {item.candidate for item in first} & {item.candidate for item in second}
    assert [item.candidate for item in campaign.pending] == [
        item.candidate for item in (*first, *second)
    ]
    campaign.tell(second[1].candidate[:10], {"hardness": 1.0})
    assert len(campaign.pending) == 6


def test_nothing_is_asked_beyond_the_budget(asked: Callable[..., Campaign]) -> None:
    campaign = asked(budget={"labels": 6})
    questions = campaign.ask(4) + campaign.ask(4)
    assert len(questions) == 6
    for question in questions:
        campaign.tell(question, {"hardness": hardness(question)})
    assert campaign.ask(1) == []
    ended = campaign.state().session_ended
    assert ended is not None
    assert ended.is_final


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "lacks hardness"),
        ({"hardnes": 1.0}, "nobody asked for 'hardnes'"),
        ({"hardness": float("nan")}, "hardness"),
        ({"hardness": "soft"}, "expected a number"),
        ({"hardness": True}, "expected one number"),
        ({"hardness (eV)": 1.0}, "eV"),
        ({"hardness": 1.0, "density": 2.0}, "density"),
    ],
)
def test_what_is_no_answer_is_refused_and_leaves_the_question_open(
    asked: Callable[..., Campaign], values: dict[str, Any], message: str
) -> None:
    campaign = asked()
    (question,) = campaign.ask(1)
    with pytest.raises(InputError, match=message):
        campaign.tell(question, values)
    assert len(campaign.pending) == 1


def test_units_noise_failures_and_windows(asked: Callable[..., Campaign]) -> None:
    campaign = asked()
    converted, noisy, broken, absurd = campaign.ask(4)
    label = campaign.tell(converted, {"hardness (MPa)": 2500.0})
    assert isinstance(label, LabelRecord)
    assert label.values["hardness"] == pytest.approx(2.5)
    label = campaign.tell(noisy, {"hardness": Observation("hardness", 30.0, "kbar", 1.0)})
    assert isinstance(label, LabelRecord)
    assert (label.observations[0].value, label.observations[0].noise) == (
        pytest.approx(3.0),
        pytest.approx(0.1),
    )
    failure = campaign.fail(broken, "not_converged", "the sample broke")
    assert isinstance(failure, Failure)
    told = dict(campaign.explain(broken.candidate))["failed"]
    assert told.endswith("at ask_tell: not_converged: the sample broke; not tried again")
    failure = campaign.tell(absurd, {"hardness": 1e4})
    assert isinstance(failure, Failure)
    assert "lies outside" in failure.message
    with pytest.raises(InputError, match="has its answer already"):
        campaign.tell(converted, {"hardness": 1.0})
    with pytest.raises(InputError, match="no kind of failure"):
        campaign.fail(campaign.ask(1)[0], "bad luck", "")
    with pytest.raises(InputError, match="no open question"):
        campaign.tell("f" * 32, {"hardness": 1.0})


def test_suggestions_are_what_is_asked_next_and_record_nothing(
    asked: Callable[..., Campaign],
) -> None:
    campaign = asked()
    for question in campaign.ask(4):
        campaign.tell(question, {"hardness": hardness(question)})
    before = campaign.state().sequence
    suggested = campaign.suggest(3)
    assert campaign.state().sequence == before
    assert [item.candidate for item in suggested] == [item.candidate for item in campaign.ask(3)]


def test_predictions_and_figures(asked: Callable[..., Campaign]) -> None:
    campaign = asked()
    campaign.ask(1)
    with pytest.raises(InputError, match="too few"):
        campaign.predict([])
    for question in [*campaign.pending, *campaign.ask(7)]:
        campaign.tell(question, {"hardness": hardness(question)})
    crystal = question.crystal
    table = campaign.predict([crystal, crystal.structure, crystal.atoms])
    assert list(table.columns) == ["formula", "hardness (GPa)", "hardness standard deviation (GPa)"]
    assert np.ptp(table["hardness (GPa)"]) < 1e-3
    assert table["hardness (GPa)"][0] == pytest.approx(hardness(question), abs=0.5)
    assert len(campaign.plot.best_so_far().data) > 0
    with pytest.raises(InputError, match="nothing to show"):
        campaign.plot.front()
    assert campaign.explain(question.candidate[:8])[0][0] == "candidate"


def test_at_the_terminal(asked: Callable[..., Campaign], tmp_path: Path) -> None:
    campaign = asked()
    campaign.ask(1)
    result = CliRunner().invoke(app, ["ask", str(campaign.folder), "2"])
    assert result.exit_code == 0, result.output
    assert "3 open, 2 of them new" in result.output
    path = campaign.folder / "questions" / "questions.csv"
    header, *rows = path.read_text().splitlines()
    assert header == "id,oracle,formula,file,hardness (GPa),failure"
    cells = [row.split(",") for row in rows]
    assert all((path.parent / row[3]).exists() for row in cells)
    filled = [[*cells[0][:4], "2,5", ""], [*cells[1][:4], "2.5", ""]]
    path.write_text("\n".join([header, *(",".join(f'"{cell}"' for cell in row) for row in filled)]))
    result = CliRunner().invoke(app, ["tell", str(campaign.folder), str(path)])
    assert result.exit_code == 2
    assert "row 1" in result.output
    assert len(campaign.pending) == 3
    filled = [[*cells[0][:4], "2.5", ""], [*cells[1][:4], "", "broke"], cells[2]]
    path.write_text("\n".join([header, *(",".join(row) for row in filled)]))
    result = CliRunner().invoke(app, ["tell", str(campaign.folder), str(path)])
    assert result.exit_code == 0, result.output
    assert "1 labels and 1 failures recorded; 1 questions are open" in " ".join(
        result.output.split()
    )


ASKER = """
import sys, json, os, signal
sys.path.insert(0, sys.argv[3])
from oreloop import Campaign
campaign = Campaign.open(sys.argv[1])
for question in campaign.ask(2):
    print(question.candidate, flush=True)
if sys.argv[2] == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def asker(folder: Path, how: str) -> subprocess.Popen[str]:
    root = str(Path(oreloop.__file__).parent.parent)
    return subprocess.Popen(
        [sys.executable, "-c", ASKER, str(folder), how, root],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )


def test_a_process_that_is_killed_between_asking_and_telling_loses_nothing(
    asked: Callable[..., Campaign],
) -> None:
    campaign = asked(budget={"labels": 1000})
    campaign.ask(1)
    process = asker(campaign.folder, "dies")
    names = process.communicate(timeout=50)[0].split()
    assert process.returncode == -signal.SIGKILL
    assert {item.candidate for item in campaign.pending} >= set(names)
    for question in campaign.pending:
        campaign.tell(question, {"hardness": hardness(question)})
    assert set(campaign.labels.candidate) >= set(names)


def test_several_ask_at_once_and_each_gets_questions_of_its_own(
    asked: Callable[..., Campaign],
) -> None:
    campaign = asked(budget={"labels": 1000})
    campaign.ask(1)
    processes = [asker(campaign.folder, "lives") for _ in range(2)]
    names = [name for process in processes for name in process.communicate(timeout=50)[0].split()]
    assert len(names) == len(set(names)) == 4
    assert len(campaign.pending) == 5


@pytest.mark.slow
def test_killed_twenty_times(asked: Callable[..., Campaign]) -> None:
    campaign = asked(budget={"labels": 1000})
    campaign.ask(1)
    for _ in range(20):
        asker(campaign.folder, "dies").communicate(timeout=100)
        question = campaign.pending[0]
        campaign.tell(question, {"hardness": hardness(question)})
    for question in campaign.pending:
        campaign.tell(question, {"hardness": hardness(question)})
    state = campaign.state()
    assert len(state.labels) == 41
    for index, record in enumerate(state.rounds):
        assert record.decided is not None
        assert replay(campaign, index) == record.decided.choices


def test_every_public_name_is_there_and_told_of() -> None:
    for name in oreloop.__all__:
        assert getattr(oreloop, name).__doc__, name
    for package in ("oreloop", "campaign", "surrogates", "generators", "oracles"):
        assert (Path(oreloop.__file__).parent.parent / package / "py.typed").exists()
