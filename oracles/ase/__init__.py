"""Oracles on any ASE calculator, and universal potentials by name."""
