"""One peer on one table, in the peers' own environment: PYTHON benchmarks/peers_worker.py TABLE.npz
PEER SEED BATCH LABELS ROW ...

TABLE holds ``x`` (n, d), columns scaled to [0, 1], and ``gain`` (n,), larger is better; the ROWs
are labelled first. Each peer gets its defaults, chooses BATCH rows at a time and sees no gain of a
row that it did not choose. Prints a JSON object: the rows in the order of their labels, and the
seconds that it took to choose. With PEER alone it says whether the peer is installed.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

Rows = list[int]
Choose = Callable[[Rows, int], Rows]
DISTRIBUTIONS = {"baybe": "baybe", "ax": "ax-platform", "bofire": "bofire", "physbo": "physbo"}


def baybe(x: Any, gain: Any, seed: int) -> Choose:
    import pandas as pd
    from baybe import Campaign
    from baybe.objectives import SingleTargetObjective
    from baybe.parameters import CustomDiscreteParameter
    from baybe.searchspace import SearchSpace
    from baybe.settings import Settings
    from baybe.targets import NumericalTarget

    Settings(random_seed=seed).activate()
    names = [f"r{row}" for row in range(len(x))]
    columns = [f"x{column}" for column in range(x.shape[1])]
    data = pd.DataFrame(x, index=names, columns=columns)
    rows = CustomDiscreteParameter("row", data, decorrelate=False)
    campaign = Campaign(
        SearchSpace.from_product([rows]),
        SingleTargetObjective(NumericalTarget("gain")),
        allow_recommending_already_measured=False,
    )
    told: Rows = []

    def choose(labelled: Rows, n: int) -> Rows:
        fresh = labelled[len(told) :]
        campaign.add_measurements(
            pd.DataFrame({"row": [names[row] for row in fresh], "gain": gain[fresh]})
        )
        told.extend(fresh)
        return [int(name[1:]) for name in campaign.recommend(n)["row"]]

    return choose


def ax(x: Any, gain: Any, seed: int) -> Choose:
    """Ax has no list of candidates: its acquisition function is evaluated at each row, one choice
    after another with the earlier ones as pending.
    """
    from ax.adapter.registry import Generators
    from ax.core.observation import ObservationFeatures
    from ax.service.ax_client import AxClient, ObjectiveProperties

    client = AxClient(random_seed=seed, verbose_logging=False)
    names = [f"x{column}" for column in range(x.shape[1])]
    client.create_experiment(
        parameters=[
            {"name": name, "type": "range", "bounds": [0.0, 1.0], "value_type": "float"}
            for name in names
        ],
        objectives={"gain": ObjectiveProperties(minimize=False)},
    )
    points = [dict(zip(names, map(float, row), strict=True)) for row in x]
    features = [ObservationFeatures(parameters=point) for point in points]
    told: Rows = []

    def choose(labelled: Rows, n: int) -> Rows:
        for row in labelled[len(told) :]:
            _, trial = client.attach_trial(points[row])
            client.complete_trial(trial, raw_data={"gain": (float(gain[row]), None)})
            told.append(row)
        model = Generators.BOTORCH_MODULAR(
            experiment=client.experiment, data=client.experiment.lookup_data()
        )
        chosen: Rows = []
        for _ in range(n):
            free = [row for row in range(len(x)) if row not in {*labelled, *chosen}]
            values = model.evaluate_acquisition_function(
                [features[row] for row in free],
                pending_observations={"gain": [features[row] for row in chosen]},
            )
            chosen.append(free[int(np.argmax(values))])
        return chosen

    return choose


def bofire(x: Any, gain: Any, seed: int) -> Choose:
    """BoFire's single-objective strategy, one choice after another with the earlier ones as
    pending.
    """
    import bofire.strategies.api as strategies
    import pandas as pd
    from bofire.data_models.domain.api import Domain
    from bofire.data_models.features.api import ContinuousInput, ContinuousOutput
    from bofire.data_models.objectives.api import MaximizeObjective
    from bofire.data_models.strategies.api import SoboStrategy

    names = [f"x{column}" for column in range(x.shape[1])]
    domain = Domain.from_lists(
        inputs=[ContinuousInput(key=name, bounds=(0.0, 1.0)) for name in names],
        outputs=[ContinuousOutput(key="gain", objective=MaximizeObjective(w=1.0))],
    )
    strategy = strategies.map(SoboStrategy(domain=domain, seed=seed))
    points = pd.DataFrame(x, columns=names)

    def choose(labelled: Rows, n: int) -> Rows:
        known = points.iloc[labelled].assign(gain=gain[labelled], valid_gain=1)
        strategy.reset_candidates()
        strategy.tell(known.reset_index(drop=True), replace=True)
        chosen: Rows = []
        for _ in range(n):
            free = [row for row in range(len(x)) if row not in {*labelled, *chosen}]
            value = strategy.calc_acquisition(points.iloc[free])
            chosen.append(free[int(np.argmax(value))])
            strategy.add_candidates(points.iloc[chosen[-1:]])
        return chosen

    return choose


def physbo(x: Any, gain: Any, seed: int) -> Choose:
    import physbo as peer

    policy: Any = None
    told: Rows = []

    def choose(labelled: Rows, n: int) -> Rows:
        nonlocal policy
        if policy is None:
            policy = peer.search.discrete.Policy(
                test_X=x, initial_data=(np.array(labelled), gain[labelled])
            )
            policy.set_seed(seed)
        else:
            fresh = labelled[len(told) :]
            policy.write(np.array(fresh), gain[fresh])
        told[:] = labelled
        found = policy.bayes_search(
            max_num_probes=1,
            num_search_each_probe=n,
            simulator=None,
            score="EI",
            interval=0,
            is_disp=False,
        )
        return [int(row) for row in found]

    return choose


PEERS = {"baybe": baybe, "ax": ax, "bofire": bofire, "physbo": physbo}


def search(choose: Choose, first: Rows, batch: int, most: int, best: set[int]) -> Rows:
    """What is labelled, batch after batch, until one of the best is found."""
    labelled = list(first)
    while len(labelled) < most and not best & set(labelled):
        chosen = choose(labelled, min(batch, most - len(labelled)))
        if not chosen or set(chosen) & set(labelled) or len(set(chosen)) < len(chosen):
            raise ValueError(
                f"expected {batch} rows that are not labelled, got {chosen} beside {labelled}"
            )
        labelled += chosen
    return labelled


def main() -> None:
    peer = sys.argv[2] if len(sys.argv) > 2 else sys.argv[1]
    try:
        installed = version(DISTRIBUTIONS[peer])
    except PackageNotFoundError:
        print(json.dumps({"absent": peer}))
        return
    if len(sys.argv) == 2:
        print(json.dumps({"version": installed}))
        return
    path, _, seed, batch, most, *first = sys.argv[1:]
    table = np.load(path)
    x, gain = table["x"], table["gain"]
    np.random.seed(int(seed))
    try:
        import torch
    except ImportError:
        pass
    else:
        torch.manual_seed(int(seed))
    best = set(np.flatnonzero(gain >= float(table["target"])).tolist())
    choose = PEERS[peer](x, gain, int(seed))
    began = time.process_time()
    labelled = search(choose, [int(row) for row in first], int(batch), int(most), best)
    seconds = time.process_time() - began
    print(json.dumps({"rows": labelled, "cpu_seconds": seconds, "version": installed}))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    main()
