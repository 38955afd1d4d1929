"""What each generator and each oracle brought in configs/three_generators.yaml, per label and per
second.

python -m benchmarks.three_generators

Runs the campaign under benchmarks/results/parts, or goes on with it, and reads its ledger. Goals:
at most 60 minutes on two cores, labels of every oracle on crystals of every generator, each learned
generator and the surrogate trained at least twice, every round in MLflow.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.record import RESULTS, Row, goal, show, write
from campaign.api import Campaign
from campaign.ledger import CampaignState
from campaign.views import metrics

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "three_generators.yaml"
LEARNED, LEVELS = ("pcdvae", "flow_matching", "cvae"), ("lammps", "mace", "gpaw")


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    (run,) = rows["run"]
    found: dict[str, Any] = {"minutes of running time": goal(run["minutes"], 60, at_least=False)}
    pairs = {(row["generator"], row["oracle"]) for row in rows["contributions"] if row["labels"]}
    wanted = [(generator, oracle) for generator in LEARNED for oracle in LEVELS]
    found["pairs of learned generator and oracle with labels"] = goal(
        sum(pair in pairs for pair in wanted), len(wanted), at_least=True
    )
    found["fewest trainings of a learned generator"] = goal(
        min(run["trained"].get(name, 0) for name in LEARNED), 2, at_least=True
    )
    found["fits of the surrogate"] = goal(run["fitted"], 2, at_least=True)
    found["rounds, of them in MLflow"] = [run["rounds"], run["rounds in MLflow"]]
    for row in rows["contributions"]:
        name = f"{row['generator']} by {row['oracle']}"
        if row["labels"]:
            best = None if row["best"] is None else round(row["best"], 4)
            found[f"{name}: labels, seconds a label, best formation energy (eV/atom)"] = [
                row["labels"],
                round(row["seconds"] / row["labels"], 2),
                best,
            ]
    for row in rows["generators"]:
        found[f"{row['generator']}: proposed, accepted, seconds of proposing and of training"] = [
            row["proposed"],
            row["accepted"],
            round(row["proposing"], 1),
            round(row["training"], 1),
        ]
    found["decisions by the model, by level"] = run["chosen by the model"]
    found["failures"] = run["failures"]
    return found


def generators(state: CampaignState) -> list[Row]:
    """Proposals, what the screens accepted of them, and seconds."""
    rows: dict[str, Row] = {}
    for record in state.rounds:
        for event in record.proposed:
            empty: Row = {
                "generator": event.generator,
                "proposed": 0,
                "accepted": 0,
                "proposing": 0.0,
                "training": 0.0,
            }
            row = rows.setdefault(event.generator, empty)
            row["proposed"] += len(event.proposals)
            row["proposing"] += event.seconds
        for trained in record.trained:
            if trained.generator in rows:
                rows[trained.generator]["training"] += trained.seconds
    for name, candidate in state.candidates.items():
        if (
            candidate.verdict is not None
            and candidate.verdict.is_accepted
            and state.source_of(name) in rows
        ):
            rows[state.source_of(name)]["accepted"] += 1
    return list(rows.values())


def rounds_in_mlflow(campaign: Campaign) -> int:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{campaign.folder / 'mlflow.db'}")
    runs = [
        run
        for experiment in client.search_experiments()
        for run in client.search_runs([experiment.experiment_id])
    ]
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return len(
        {
            metric.step
            for run in parents
            for metric in client.get_metric_history(run.info.run_id, "proposed")
        }
    )


def rows_of(campaign: Campaign) -> dict[str, list[Row]]:
    state = campaign.state()
    by_model = [
        choice.oracle
        for record in state.rounds
        if record.decided is not None and record.decided.model is not None
        for choice in record.decided.choices
        if choice.reason != "audit"
    ]
    run = {
        "minutes": state.active_seconds / 60,
        "rounds": len(state.rounds),
        "rounds in MLflow": rounds_in_mlflow(campaign),
        "trained": dict(
            Counter(event.generator for record in state.rounds for event in record.trained)
        ),
        "fitted": sum(record.fitted is not None for record in state.rounds),
        "chosen by the model": dict(Counter(by_model)),
        "failures": {
            f"{oracle}: {kind}": n
            for (oracle, kind), n in Counter(
                (e.oracle, e.kind) for _, _, e in state.failures
            ).items()
        },
    }
    parts = [asdict(part) for part in metrics.contributions(state, campaign.wanted)]
    return {"run": [run], "contributions": parts, "generators": generators(state)}


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    campaign = Campaign.from_config(CONFIG, RESULTS / "parts" / "three-generators")
    campaign.run()
    rows = rows_of(campaign)
    write("three_generators", rows, summarise)
    show(summarise(rows))


if __name__ == "__main__":
    main()
