"""Benchmarks: workloads x backends behind one protocol.

`python -m benchmarks` runs every workload against every backend in paired rounds and prints the
ratios; `pytest benchmarks/ --benchmark-only` runs the same measures under pytest-benchmark.
"""
