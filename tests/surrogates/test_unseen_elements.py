"""An element of the search space that no label holds is uncertain to every model, not invisible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import SMALL

from campaign import plugins
from campaign.config import loaded as configs
from campaign.crystals.lattice import supercell
from campaign.protocols import PluginSpec
from campaign.types import Candidate

SPACE = ("Co", "Cr", "Fe", "Ni")
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("gp", {}),
    ("gp", {"kernel": "rbf"}),
    ("gp", {"kernel": "matern"}),
    ("gp", {"sparse_above": 20, "inducing_points": 15}),
    ("gp", {"components": 5}),
    ("gp", {"descriptors": [{"use": "composition"}]}),
    ("gp", {"descriptors": [{"use": "soap", "params": {"n_max": 2, "l_max": 1}}]}),
    ("multi_task_gp", {}),
    ("deep_kernel_gp", {"steps": 80}),
    ("ensemble", {"steps": 300}),
]


def mixtures(elements: tuple[str, ...], n: int, seed: int) -> list[Candidate]:
    rng = np.random.default_rng(seed)
    return [
        Candidate(
            supercell(
                "bcc",
                (2, 2, 2),
                rng.choice(elements, 16, p=rng.dirichlet(np.ones(len(elements)))).tolist(),
            )
        )
        for _ in range(n)
    ]


def energy(points: list[Candidate]) -> np.ndarray:
    share = np.array(
        [
            [np.mean(np.array(point.crystal.symbols) == element) for element in SPACE]
            for point in points
        ]
    )
    return share @ [-4.2, -4.0, -4.3, -4.45] - 0.1 * share[:, 1] * share[:, 3]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("use", "params"), MODELS, ids=[f"{use} {params}" for use, params in MODELS]
)
def test_a_model_is_less_sure_of_what_it_has_never_seen(use: str, params: dict[str, Any]) -> None:
    seen = mixtures(SPACE[1:], 40, 0)
    torch.manual_seed(0)
    surrogate = plugins.build(
        PluginSpec(group="surrogates", use=use, params=params, elements=SPACE)
    )
    fitted = surrogate.fit(seen, energy(seen))

    def deviation(points: list[Candidate]) -> np.ndarray:
        return fitted.posterior(points).variance.detach().sqrt().reshape(-1).numpy()  # type: ignore[no-any-return]

    known = deviation(mixtures(SPACE[1:], 40, 1))
    cobalt = deviation([Candidate(supercell("bcc", (2, 2, 2), ["Co"] * 16))])
    half = deviation(
        [
            Candidate(supercell("bcc", (2, 2, 2), ["Co"] * 8 + [element] * 8))
            for element in SPACE[1:]
        ]
    )
    assert cobalt[0] > 1.5 * known.mean()
    assert half.mean() > known.mean()


def test_a_campaign_hands_its_elements_to_its_models(tmp_path: Path) -> None:
    loaded = configs.validate(
        SMALL | {"space": {"elements": list(SPACE)}},
        folder=tmp_path,
        source=tmp_path / "small.yaml",
    )
    assert loaded.config.surrogate is not None
    surrogate = plugins.build(loaded.spec("surrogates", loaded.config.surrogate))
    seen = mixtures(SPACE[1:], 20, 0)
    assert "fraction_Co" in surrogate.fit(seen, energy(seen)).hyperparameters["columns"]
