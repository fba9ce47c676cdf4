"""Grafana's boards, made from code.

    python -m tools.boards [--check]    writes grafana/dashboards/*.json, or says whether they are fresh

One module a board says what it shows; ``panels.py`` says how panels look, once for all of them.
"""
