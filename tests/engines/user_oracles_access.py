"""The fate that the failing oracle deals a candidate, for the tests that check it."""

from __future__ import annotations

import importlib.util
import sys

from support import HELPERS

_spec = importlib.util.spec_from_file_location("user_oracles", HELPERS / "user_oracles.py")
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("user_oracles", _module)
_spec.loader.exec_module(_module)

fate = _module.Failing.fate
