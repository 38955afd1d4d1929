"""Surrogates: models of what oracles would say."""
