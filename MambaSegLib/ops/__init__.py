"""Operators of the Mamba family: a plain reference each, and faster backends that must equal it."""
