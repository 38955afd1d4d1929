"""The quick-start campaign with real labels, cut short."""

from __future__ import annotations

from pathlib import Path

from ruamel.yaml import YAML

from campaign.api import Campaign
from campaign.config import loaded as configs

ROOT = Path(__file__).resolve().parent.parent.parent


def test_quickstart_with_molecular_dynamics_labels_on_ray(tmp_path: Path) -> None:
    document = YAML(typ="safe").load(ROOT / "configs" / "nifecr_quickstart.yaml")
    document["budget"]["labels"] = 60
    document["tracking"] = {"use": "none"}
    loaded = configs.validate(
        document, folder=ROOT / "configs", source=tmp_path / "quickstart.yaml"
    )
    campaign = Campaign(tmp_path / "campaign", loaded)
    assert campaign.run() == "budget spent: 60 labels"
    labels = campaign.labels
    modulus = labels["bulk_modulus (GPa)"]
    assert modulus.between(140, 230).all()
    chosen = modulus[labels["round"] > 0]
    assert chosen.mean() > modulus[labels["round"] == 0].mean() + 3
    crystals = [campaign.crystal(identity) for identity in labels["relaxed"][:3]]
    assert all(len(crystal) == 16 for crystal in crystals)
    phases = labels[["fraction_fcc (1)", "fraction_hcp (1)", "fraction_bcc (1)"]].sum(axis=1)
    assert phases.between(0, 1 + 1e-9).all()
