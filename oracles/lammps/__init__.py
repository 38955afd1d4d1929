"""Labels from LAMMPS molecular mechanics."""
