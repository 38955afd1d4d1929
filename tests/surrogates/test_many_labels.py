"""A Gaussian process of more labels than BoTorch fits by L-BFGS of itself."""

from __future__ import annotations

import torch

from surrogates.gp import GaussianProcess, GaussianProcessConfig


def test_a_sparse_process_of_more_than_1024_labels_is_fitted() -> None:
    points = torch.rand(1200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = (points - 0.5).square().sum(-1, keepdim=True)
    torch.manual_seed(0)
    surrogate = GaussianProcess(
        GaussianProcessConfig(sparse_above=1000, inducing_points=20, max_iterations=100)
    )
    model, facts = surrogate.train(points, values, None)
    assert facts["notes"] == ""
    with torch.no_grad():
        found = model.eval().posterior(points).mean
    assert float((found - values).square().mean().sqrt()) < 0.5 * float(values.std())
