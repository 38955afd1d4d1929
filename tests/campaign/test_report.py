"""The report and the comparison: what they say, and that a real browser draws them, offline, and
MLflow's comparison of two campaigns.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from ase.data import covalent_radii
from support import HELPERS, load

from campaign.api import Campaign
from campaign.decide import ranking
from campaign.errors import InputError
from campaign.report import pictures, write_report
from campaign.report.compare import write_comparison
from campaign.report.structures import view
from campaign.tracking.ui import command as ui_command
from campaign.types import Crystal
from campaign.views import metrics

BROWSER = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install chromium")
Make = Callable[..., Campaign]


def drawn(address: str, *, width: int = 1000) -> str:
    """The page as a browser holds it once its scripts have run."""
    assert BROWSER is not None
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--use-gl=angle",
        "--use-angle=swiftshader",
        f"--window-size={width},2000",
    ]
    command = [
        BROWSER,
        *options,
        "--enable-unsafe-swiftshader",
        "--virtual-time-budget=20000",
        "--dump-dom",
        address,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout


def named(folder: Path, name: str, **changes: Any) -> Campaign:
    return Campaign(folder / name, load(HELPERS, name=name, **changes))


def page_of(campaign: Campaign) -> Path:
    with campaign.view() as view:
        return write_report(view, campaign.folder)


def test_the_report_tells_where_candidates_were_lost(small: Make) -> None:
    failing = {
        "use": "user_oracles:Failing",
        "wall_limit": 1.0,
        "sanity": {"energy_per_atom": [-10, 10]},
    }
    policy = {kind: {"retries": 0} for kind in ("crash", "timeout", "unphysical")} | {
        "pause_above": 1.0
    }
    campaign = small(oracles=[failing], budget={"labels": 14}, failure_policy=policy)
    campaign.run()
    state = campaign.state()
    text = page_of(campaign).read_text().split("What was lost, and why")[1]
    rows = re.findall(
        r"<tr><td>(screened|accepted|selected)</td><td>(.*?)</td><td "
        r"class=\"number\">(\d+)</td></tr>",
        text,
    )
    lost = {(step, reason): int(count) for step, reason, count in rows}
    records = [record for record in state.candidates.values() if record.proposals]
    labelled = {label.candidate for label in state.own_labels}
    assert sum(lost.values()) == len(records) - len(labelled), (
        "everything proposed is labelled or told of"
    )
    assert any("given up" in reason for _, reason in lost)


def test_what_each_generator_brought_adds_up(small: Make) -> None:
    campaign = small()
    campaign.run()
    state = campaign.state()
    parts = metrics.contributions(state, campaign.wanted)
    assert sum(part.labels for part in parts) == len(state.own_labels)
    assert sum(part.seconds for part in parts) == pytest.approx(
        sum(label.wall_seconds for label in state.own_labels)
    )
    best = ranking.best(state, campaign.wanted)
    assert best is not None
    assert (
        min(part.best for part in parts if part.best is not None) == best.values["energy_per_atom"]
    )
    assert "What each generator brought at each oracle" in page_of(campaign).read_text()


def test_the_view_shows_atoms_on_faces_twice() -> None:
    cubic = Crystal(3.6 * np.eye(3), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([26, 28]))
    other = Crystal(4.0 * np.eye(3), np.array([[0.2, 0.3, 0.4]]), np.array([6]))
    figure = view([("first", cubic), ("second", other)])
    assert figure is not None
    atoms = [trace for trace in figure.data if trace.mode == "markers+text"]
    assert [len(trace.x) for trace in atoms] == [8, 1, 1], (
        "eight corners and the middle; one inside"
    )
    assert [trace.name for trace in atoms] == ["Fe (1)", "Ni (1)", "C (1)"], (
        "each element has its entry in the legend"
    )
    assert [trace.visible for trace in atoms] == [True, True, False]
    buttons = figure.layout.updatemenus[0].buttons
    assert [button.label for button in buttons] == ["first", "second"]
    assert buttons[1].args[0]["visible"] == [False] * 4 + [True] * 3
    assert view([]) is None


def test_no_element_of_a_large_cell_is_hidden_by_others() -> None:
    """Atoms are drawn smaller than the way between neighbours, whatever the cell."""
    sites = np.stack(np.meshgrid(*[np.arange(3) / 3] * 3), axis=-1).reshape(-1, 3)
    crystal = Crystal(7.5 * np.eye(3), sites, np.where(np.arange(27) == 13, 24, 28))
    figure = view([("one", crystal)])
    assert figure is not None
    sizes = [trace.marker.size for trace in figure.data if trace.mode == "markers"]
    across = np.linalg.norm([7.5] * 3)
    assert len(sizes) == 2
    assert max(sizes) < 330 * 2.5 / across / 2
    assert "Cr (1)" in [trace.name for trace in figure.data]


def test_no_atom_of_a_still_picture_is_cut() -> None:
    """Caesium at the corner of its cell reaches far beyond it."""
    caesium = Crystal(6.0 * np.eye(3), np.zeros((1, 3)), np.array([55]))
    (axes,) = pictures.crystal(caesium, "Cs").axes
    discs = axes.collections[-1]
    radius = 1.1 * covalent_radii[55] / 2
    ((x, y),) = discs.get_offsets()
    assert axes.get_xlim()[0] <= x - radius < x + radius <= axes.get_xlim()[1]
    assert axes.get_ylim()[0] <= y - radius < y + radius <= axes.get_ylim()[1]


def test_the_page_tells_units_formulas_settings_and_what_to_cite(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "further_objectives": [{"quantity": "price_per_kg", "direction": "minimize"}],
        "surrogate": None,
    }
    changes |= {
        "acquisition": {"use": "random"},
        "tracking": {"use": "none", "uri": "sqlite:////secret/place.db"},
    }
    campaign = named(tmp_path, "told", **changes)
    campaign.run()
    page = page_of(campaign).read_text()
    best = campaign.best.iloc[0]
    assert "minimize energy_per_atom (eV/atom), minimize price_per_kg (USD/kg)" in page
    assert f"{best['formula']}, candidate {best['candidate']}" in page, "a formula beside the hash"
    assert re.search(
        r'"title":\{"text":"price_per_kg \(USD\\u002fkg\)"\}|"title":\{"text":"price_per_kg '
        r'\(USD/kg\)"\}',
        page,
    )
    assert "predicted: energy_per_atom (eV" in page or "Predicted before" not in page
    text = page.split("<h2>Methods, and what to cite</h2>")[1]
    assert "An active-learning campaign was run with oreloop" in text
    assert "Ong et al." in text
    assert "- use: lennard_jones" in text
    assert "lennard-jones-" in text
    assert "secret" not in page


def test_the_page_is_made_for_paper_too(small: Make) -> None:
    campaign = small(budget={"labels": 9})
    campaign.run()
    page = page_of(campaign).read_text()
    assert page.count('<section class="figure">') >= 4
    style = page.split("<style>")[1].split("</style>")[0]
    assert ".figure, tr { break-inside: avoid; }" in style
    assert 'addEventListener("beforeprint"' in page


@needs_browser
def test_nothing_of_a_figure_is_lost_on_paper(small: Make, tmp_path: Path) -> None:
    """A wide window, then narrow paper: every figure is drawn anew in the paper's width."""
    campaign = small(budget={"labels": 9})
    campaign.run()
    page = tmp_path / "printing.html"
    told = (
        "figures().map(figure => "
        "Math.round(figure.querySelector('.main-svg').getBoundingClientRect().width))"
    )
    measure = f"setTimeout(() => {{ document.title = 'w:' + {told}; }}, 3000)"
    script = (
        f"window.onload = () => setTimeout(() => {{ dispatchEvent(new "
        f"Event('beforeprint')); {measure}; }}, 3000);"
    )
    page.write_text(
        page_of(campaign).read_text().replace("</body>", f"<script>{script}</script></body>")
    )
    found = re.search(r"<title>w:([\d,]+)</title>", drawn(page.as_uri(), width=1600))
    assert found is not None
    widths = [int(width) for width in found[1].split(",")]
    assert len(widths) >= 4
    assert max(widths) <= 660


def test_campaigns_are_compared_side_by_side(tmp_path: Path) -> None:
    one, other = named(tmp_path, "one"), named(tmp_path, "other", seed=8)
    one.run()
    other.run()
    page = write_comparison([one, other], tmp_path / "comparison.html").read_text()
    for campaign in (one, other):
        best = ranking.best(campaign.state(), campaign.wanted)
        assert best is not None
        assert best.candidate in page
    assert "not measured at one level" not in page
    elsewhere = named(
        tmp_path, "elsewhere", oracles=[{"use": "lennard_jones", "params": {"epsilon": 0.2}}]
    )
    elsewhere.run()
    assert (
        "not measured at one level"
        in write_comparison([one, elsewhere], tmp_path / "comparison.html").read_text()
    )
    with pytest.raises(InputError, match="at least two campaigns"):
        write_comparison([one], tmp_path / "never.html")
    with pytest.raises(InputError, match="campaigns of one objective"):
        write_comparison(
            [one, named(tmp_path, "up", objective={"direction": "maximize"})],
            tmp_path / "never.html",
        )
    assert not (tmp_path / "never.html").exists()


@needs_browser
def test_a_browser_draws_the_report_offline_and_on_a_small_screen(small: Make) -> None:
    campaign = small()
    campaign.run()
    page = page_of(campaign)
    for width in (1000, 400):
        held = drawn(page.as_uri(), width=width)
        pictures = held.count('class="plotly-graph-div')
        assert pictures >= 6
        assert held.count('class="main-svg') >= pictures, "each is drawn"
        assert 'class="gl-container"' in held


@needs_browser
@pytest.mark.timeout(180)
def test_mlflow_lays_two_campaigns_over_each_other(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'both.db'}"
    for name, seed in (("first-campaign", 1), ("second-campaign", 2)):
        named(
            tmp_path, name, seed=seed, budget={"labels": 14}, tracking={"use": "mlflow", "uri": uri}
        ).run()
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("oreloop")
    assert experiment is not None
    runs = [
        run
        for run in client.search_runs([experiment.experiment_id])
        if "mlflow.parentRunId" not in run.data.tags
    ]
    assert len(runs) == 2
    assert runs[0].data.metrics.keys() == runs[1].data.metrics.keys(), "the same names in both"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        ui_command(uri, port),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/health")
        chosen = quote(json.dumps([run.info.run_id for run in runs]))
        held = drawn(
            f"{address}/#/compare-runs?runs={chosen}&experiments={quote(json.dumps([experiment.experiment_id]))}"
        )
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)
    for text in ("first-campaign", "second-campaign", "labels/best_so_far", "labels/so_far"):
        assert text in held, f"{text} is not in the comparison"


def _wait_for(address: str) -> None:
    for _ in range(120):
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"nothing answers on {address}")
