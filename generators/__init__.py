"""Generators: propose crystals."""
