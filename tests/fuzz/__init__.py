"""Damaged files for every reader of foreign bytes: see :mod:`tests.fuzz.__main__`."""
