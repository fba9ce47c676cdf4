"""Postgres: how to reach it, its tables, and the statements that read and write them."""
