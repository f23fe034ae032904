"""Measurements side by side with peers; every figure in the README comes from `results/`.

Each module runs from the repository root as `python -m benchmarks.NAME [--quick]`.
"""
