"""Hyperparameters by maximum likelihood with ways out: where an optimiser fails, the next is tried
and the model says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from botorch.exceptions.errors import ModelFittingError
from botorch.fit import fit_gpytorch_mll
from botorch.optim.fit import fit_gpytorch_mll_scipy, fit_gpytorch_mll_torch
from gpytorch.mlls import MarginalLogLikelihood
from linear_operator.utils.errors import NanError, NotPSDError

_TOLERANCE = 1e-6
_ADAM_STEPS = 150
_ERRORS = (ModelFittingError, NotPSDError, NanError, RuntimeError)


def parameters_of(model: torch.nn.Module) -> dict[str, Any]:
    """All trainable parameters by name, as plain lists."""
    return {name: parameter.detach().tolist() for name, parameter in model.named_parameters()}


def load_parameters(model: torch.nn.Module, known: Mapping[str, Any]) -> bool:
    """Take over parameters; False, and nothing taken, where names or shapes differ."""
    found = {name: torch.tensor(values, dtype=torch.float64) for name, values in known.items()}
    own = dict(model.named_parameters())
    if found.keys() != own.keys() or any(found[name].shape != own[name].shape for name in own):
        return False
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(found[name])
    return True


def maximise(mll: MarginalLogLikelihood, *, iterations: int) -> str:
    """Maximise a likelihood: L-BFGS, else Adam, else the parameters that it came with. Returns what
    went wrong, empty where nothing did.
    """
    before = {name: value.clone() for name, value in mll.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            options = {"maxiter": iterations, "ftol": _TOLERANCE}
            fit_gpytorch_mll(
                mll,
                optimizer=fit_gpytorch_mll_scipy,
                optimizer_kwargs={"options": options},
                max_attempts=2,
            )
            return ""
        except _ERRORS as error:
            mll.load_state_dict(before)
            note = f"L-BFGS failed ({type(error).__name__})"
        try:
            mll.train()
            fit_gpytorch_mll_torch(mll, step_limit=_ADAM_STEPS)
            if all(bool(torch.isfinite(parameter).all()) for parameter in mll.parameters()):
                return f"{note}, fitted by Adam"
        except _ERRORS as error:
            note = f"{note}, Adam failed ({type(error).__name__})"
        mll.load_state_dict(before)
        return f"{note}, starting parameters kept"
