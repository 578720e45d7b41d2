"""Hostile input for every subcommand, made from a seed: see docs/fuzzing.md, and `python -m
tests.fuzz --help`.
"""
