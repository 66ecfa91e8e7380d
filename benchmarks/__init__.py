"""Benchmarks, named by topology; each checks its answer and shows the machine's limits beside it."""
