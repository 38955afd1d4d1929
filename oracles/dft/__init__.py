"""Labels from density functional theory: GPAW, Quantum ESPRESSO and VASP under one settings
model.
"""
