"""Benchmarks: long measurements whose figures the notes and the README quote."""
