"""Pictures of a real campaign for these pages: ``python docs/screens.py``. Needs Chromium; takes
some minutes on two cores.

Runs configs/nifecr_quickstart.yaml at a terminal of its own and keeps its last live display, draws
the report, and opens MLflow.
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
SCREENS = ROOT / "docs" / "screens"
_FRAME = re.compile(r"(?:\x1b\[1A|\x1b\[2K|\r)+")
_COLUMNS = 110


def run_at_a_terminal(config: Path, folder: Path) -> str:
    """Runs the campaign and returns its last live display, with its colours."""
    ours, theirs = pty.openpty()
    surroundings = os.environ | {"COLUMNS": str(_COLUMNS), "LINES": "40", "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "campaign.cli", "run", str(config), "--folder", str(folder)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env=surroundings,
        cwd=ROOT,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    if process.wait() != 0:
        raise SystemExit(f"the campaign ended with code {process.returncode}")
    frames = [
        frame
        for frame in re.split(r"(?:\x1b\[1A\x1b\[2K)+", shown.decode(errors="replace"))
        if "running time" in frame
    ]
    return frames[-1].replace("\r", "")


def draw_terminal(frame: str, path: Path) -> None:
    console = Console(record=True, width=_COLUMNS, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(Text.from_ansi(_FRAME.sub("", frame)))
    console.save_svg(str(path), title="oreloop run")


def draw_page(address: str, path: Path, *, height: int) -> None:
    browser = next(
        (
            found
            for name in ("chromium", "chromium-browser", "google-chrome")
            if (found := shutil.which(name))
        ),
        None,
    )
    if browser is None:
        raise SystemExit("no Chromium is installed")
    options = [
        "--headless=new",
        "--no-sandbox",
        "--hide-scrollbars",
        "--use-gl=angle",
        "--use-angle=swiftshader",
    ]
    options += [
        "--enable-unsafe-swiftshader",
        "--virtual-time-budget=25000",
        f"--window-size=1200,{height}",
    ]
    subprocess.run(
        [browser, *options, f"--screenshot={path}", address],
        check=True,
        capture_output=True,
        timeout=180,
    )


@contextmanager
def mlflow_of(folder: Path) -> Iterator[str]:
    """The address of MLflow's dashboard of a campaign."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "campaign.cli", "ui", str(folder), "--port", str(port)]
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


def run_of(folder: Path) -> tuple[str, str]:
    """Experiment and run of a campaign in its MLflow."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = [
        run
        for experiment in client.search_experiments()
        for run in client.search_runs([experiment.experiment_id])
    ]
    parent = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    return parent.info.experiment_id, parent.info.run_id


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "nifecr_quickstart.yaml")
    arguments = parser.parse_args()
    SCREENS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "campaign"
        draw_terminal(run_at_a_terminal(arguments.config, folder), SCREENS / "terminal.svg")
        draw_page((folder / "report.html").as_uri(), SCREENS / "report.png", height=3600)
        experiment, run = run_of(folder)
        with mlflow_of(folder) as address:
            draw_page(
                f"{address}/#/experiments/{experiment}/runs/{run}",
                SCREENS / "mlflow.png",
                height=1200,
            )
    sys.stdout.write(
        f"wrote {', '.join(sorted(path.name for path in SCREENS.iterdir()))} in {SCREENS}\n"
    )


if __name__ == "__main__":
    main()
