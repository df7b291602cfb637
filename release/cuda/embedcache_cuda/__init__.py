"""Holds the CUDA library of embedcache's head engine; embedcache finds it here."""
