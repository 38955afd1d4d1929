"""Oracles: label crystals."""
