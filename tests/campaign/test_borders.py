"""Text from outside reaches people, pages, files and MLflow as it is, and nothing that it holds is
run or ends a command.
"""

from __future__ import annotations

import io
import json
import logging
import os
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support import HELPERS, load
from typer.testing import CliRunner

from campaign import text as border
from campaign.api import CONFIG_COPY, Campaign
from campaign.cli import app
from campaign.crystals.lattice import supercell
from campaign.ledger import Ledger
from campaign.ledger import events as ev
from campaign.report.compare import write_comparison
from campaign.types import Evaluation, FailureKind
from campaign.views.terminal import PlainConsole, PlainHandler

NASTY = (
    "\udc80", "\ud800x", "[/x]", "[bold]", "[link=file:///]", ":smile:", "<script>alert(1)</script>", "<b>", "</td>", "</script>", "&lt;",  # noqa: E501
    "\x00", "\x1b[31m", "\x9b2J", "\r", "\n", "\t", "=1+1", "+1", "-2+3", "@SUM(A1)", '"', "'", "\\", "%", "(", "$x$", "$", "{{ 7*7 }}",  # noqa: E501
    "../", "/", "|", ",", ";", "é", "Δ", "\u202e", "\u2028", "_JSON {", "x" * 300,
)  # fmt: skip
texts = st.lists(
    st.sampled_from(NASTY) | st.text(st.characters(exclude_categories=()), max_size=8), max_size=6
).map("".join)
at_any_speed = settings(deadline=None, suppress_health_check=list(HealthCheck))
runner = CliRunner()


def is_plain(text: str) -> bool:
    """Nothing but what a terminal prints, in any encoding that is Unicode's."""
    return all(
        c == "\n" or (c.isprintable() or ord(c) > 0x2000 or c == "\xa0") for c in text
    ) and bool(text.encode() or not text)


def campaign_that_says(folder: Path, said: str) -> Campaign:
    """A small ledger in which every text that comes from outside is this one."""
    loaded = load(HELPERS, name="said")
    crystals = [
        supercell("bcc", (2, 1, 1), ["Ni", "Ni", "Fe", other]) for other in ("Fe", "Cr", "Ni")
    ]
    ids, formulas = (
        [crystal.id for crystal in crystals],
        [f"{crystal.formula}:0" for crystal in crystals],
    )
    blobs = {crystal.id: crystal.to_bytes() for crystal in crystals}
    rows = (
        ev.ObservationRow("energy_per_atom", -4.0, "eV/atom"),
        ev.ObservationRow(said, 1.0, said),
        ev.ObservationRow(said + "2", [1.0], said),
    )
    fidelities = {name: fidelity.key for name, fidelity in loaded.parts.fidelities.items()}
    common = {
        "attempt": 0,
        "wall_seconds": 1.0,
        "cpu_seconds": 1.0,
        "started": 10.0,
        "worker": said,
        "fidelity": said,
    }
    events = [
        ev.CampaignCreated(campaign="c", name="said", seed=1),
        ev.ConfigRevised(revision=0, sha256="0", config=loaded.resolved(), fidelities=fidelities),
        ev.SessionStarted(host=said, process=1, versions={said: said}),
        ev.Imported(source=said, sha256="0", oracle="", fidelity="", rows=(ev.ImportedRow(ids[2], formulas[2], ()),)),  # noqa: E501
        ev.RoundStarted(round=0),
        ev.Trained(round=0, generator=said, checkpoint="0" * 64, parent=None, is_published=True, metrics={said: 1.0}, seconds=1.0,  # noqa: E501
                   labels=1),
        ev.Proposed(round=0, generator=said, checkpoint=None, stream=said, seconds=1.0, asked=2,
                    proposals=tuple(
            ev.ProposalRow(identity, formula, (ids[2],), {said: said}) for identity, formula in zip(ids[:2], formulas, strict=False))),  # noqa: E501
        ev.Judged(round=0, verdicts=(ev.VerdictRow(ids[0], True, ""), ev.VerdictRow(ids[1], False, said, said))),  # noqa: E501
        ev.Decided(round=0, acquisition=said, model=None, model_labels=0, stream=said, pool="h", pool_size=2, table=None, pending=(),  # noqa: E501
                   choices=tuple(ev.ChoiceRow(identity, "lennard_jones", reason=said) for identity in ids[:2]), seconds=0.1,  # noqa: E501
                   labels_at_decision=0, outcomes={said: 1}, scales={said: 1.0}),
        ev.Labelled(candidate=ids[0], oracle="lennard_jones", observations=rows, crystal=None, artifacts={}, **common),  # noqa: E501
        ev.Failed(candidate=ids[1], oracle="lennard_jones", kind="crash", message=said, is_retryable=False, is_quarantined=True, **common),  # noqa: E501
        ev.OraclePaused(oracle="lennard_jones", reason=said),
        ev.RoundEnded(round=0),
        ev.SessionEnded(reason=said),
    ]  # fmt: skip
    ledger = Ledger(folder)
    ledger.append(events, blobs)
    ledger.close()
    (folder / CONFIG_COPY).write_text(
        json.dumps({"config": loaded.resolved(), "folder": str(loaded.folder)})
    )
    return Campaign.open(folder)


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.append(tag)


@pytest.fixture(scope="module")
def tags_of_a_plain_report(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return Tags(page_of(campaign_that_says(tmp_path_factory.mktemp("plain") / "a", "plain"))).found


def page_of(campaign: Campaign) -> str:
    from campaign.report import write_report

    with campaign.view() as view:
        return write_report(view, campaign.folder).read_text()


@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
@example("".join(NASTY))
@example("[/x] <script>alert(1)</script> \udc80 \x1b[2J")
@given(texts)
def test_commands_and_pages_say_it_and_do_nothing(
    tmp_path_factory: pytest.TempPathFactory, tags_of_a_plain_report: list[str], said: str
) -> None:
    root = tmp_path_factory.mktemp("said")
    campaign = campaign_that_says(root / "campaigns", said)
    folder = str(campaign.folder)
    state = campaign.state()
    for arguments in (
        ["status", folder],
        ["list", str(root)],
        *(["explain", folder, identity] for identity in state.candidates),
    ):
        result = runner.invoke(app, arguments)
        assert result.exit_code == 0, (arguments, result.output, result.exception)
        assert is_plain(result.output)
    assert Tags(page_of(campaign)).found == tags_of_a_plain_report, "no tag comes from outside"
    assert write_comparison([campaign, campaign], root / "both.html").exists()
    read_exports(campaign, root / "export", said)


def read_exports(campaign: Campaign, folder: Path, said: str) -> None:
    import pandas as pd
    from ase.db import connect
    from ase.io import read

    result = runner.invoke(app, ["export", str(campaign.folder), "--target", str(folder)])
    assert result.exit_code == 0, (result.output, result.exception)
    kept = border.storable(said)
    (label,) = campaign.state().labels.values()
    images = read(folder / "labels.extxyz", ":")
    assert len(images) == 1
    assert images[0].info["fidelity"] == kept == label.fidelity
    assert json.loads(images[0].info["units"])["energy_per_atom"] == "eV/atom"
    row = next(connect(folder / "labels.db").select())
    assert row.get("fidelity", row.data.get("fidelity")) == kept
    table = pd.read_parquet(folder / "labels.parquet")
    for value in (*table.columns, table["worker"][0], table["fidelity"][0]):
        assert not value.startswith(("=", "+", "-", "@", "\t", "\r")) or border.cell(value) == value
    assert table["energy_per_atom (eV/atom)"][0] == -4.0
    inside = folder.resolve()
    assert all(path.resolve().is_relative_to(inside) for path in folder.rglob("*"))


@at_any_speed
@given(texts)
def test_a_failure_can_always_be_stored(said: str) -> None:
    evaluation = Evaluation.failed(FailureKind.CRASH, said)
    assert evaluation.failure is not None
    evaluation.failure.message.encode()
    assert Evaluation.failed(FailureKind.CRASH, ValueError("x")).failure.message == "x"  # type: ignore[arg-type, union-attr]


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@example("\udc80")
@given(texts)
def test_an_event_with_any_text_is_stored_and_read_back(
    tmp_path_factory: pytest.TempPathFactory, said: str
) -> None:
    campaign = campaign_that_says(tmp_path_factory.mktemp("stored") / "c", said)
    reader = campaign.reader()
    for _, _, event in reader.events():
        assert ev.storable(event) is event
        ev.encode(event)
    reader.close()
    Ledger(campaign.folder).close()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@example("".join(NASTY))
@given(texts)
def test_a_terminal_gets_no_control_characters_markup_or_what_it_cannot_encode(said: str) -> None:
    for encoding in ("utf-8", "ascii", "latin-1"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        console = PlainConsole()
        console.file, console.width = stream, 5_000
        console.print(said)
        handler = PlainHandler(console)
        handler.emit(logging.LogRecord("x", logging.WARNING, "", 0, "%s", (said,), None))
        stream.flush()
        written = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
        assert is_plain(written)
        for markup in ("[/x]", "[bold]", ":smile:"):
            assert written.count(markup) == 2 * said.count(markup), "shown as it is"


@at_any_speed
@given(texts)
def test_a_spreadsheet_runs_nothing_and_numbers_stay(said: str) -> None:
    assert not border.cell(said).startswith(("=", "@", "\t", "\r"))
    assert border.cell("-4.5") == "-4.5"
    assert border.cell("+1e-3") == "+1e-3"
    assert border.cell("-2+3").startswith("'")


@at_any_speed
@given(texts)
def test_a_file_name_stays_in_its_folder(said: str) -> None:
    name = border.file_name(said)
    assert os.sep not in name
    assert name not in ("", ".", "..")
    assert Path("/tmp/folder", name).parent == Path("/tmp/folder")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, str]:
    import mlflow

    made = mlflow.MlflowClient(f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}")
    return made, made.create_experiment("borders")


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@example(["a%", "b(", "Δ", "nan", "x" * 400, "a//b", "../a", "/a", "", "a/./b"])
@given(st.lists(texts, min_size=1, max_size=6, unique=True))
def test_mlflow_keeps_every_figure_and_text(client: tuple[object, str], names: list[str]) -> None:
    from campaign.tracking import border as mlflow_border

    made, experiment = client
    run = mlflow_border.begin(made, experiment, names[0], {names[0]: names[-1]})  # type: ignore[arg-type]
    values = {name: float(i) for i, name in enumerate(names)} | {
        "not a number": np.nan,
        "unbounded": np.inf,
        "plain": 7.0,
    }
    mlflow_border.log_values(
        made, run, values, time=1, step=0, params={name: name for name in names}
    )  # type: ignore[arg-type]
    data = made.get_run(run).data  # type: ignore[attr-defined]
    expected = {
        mlflow_border.name_of(name): value for name, value in values.items() if np.isfinite(value)
    }
    assert len(expected) == len(names) + 1 - ("plain" in names), "two names never become one"
    assert data.metrics == expected
    assert len(data.params) == len(names)


@at_any_speed
@given(texts, texts)
def test_names_for_mlflow_are_one_to_one(one: str, other: str) -> None:
    from campaign.tracking.border import name_of

    assert (name_of(one) == name_of(other)) == (one == other)
