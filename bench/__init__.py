"""Measurements, each beside its rival in one run. `make bench` runs them all; each also runs alone: python -m bench.NAME."""
