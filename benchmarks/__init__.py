"""Benchmarks: one question a file; each is a command of its own and none is a test."""
