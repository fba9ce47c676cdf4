"""``python -m crash``: what of the fault suite is no test."""

import random
import shutil
import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console

from crash.faults import all_faults
from crash.soak import soak
from crash.soak_report import Progress, table


@click.group()
def main() -> None:
    """The fault suite beside pytest."""


@main.command("list")
def list_faults() -> None:
    """The name of each fault, one a line."""
    for name in all_faults():
        click.echo(name)


@main.command("soak")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), required=True)
@click.option("--seed", type=int, help="Of the faults drawn and what they choose; by chance if not given.")
def soak_command(minutes: float, seed: int | None) -> None:
    """Faults drawn at random under load; one table at the end."""
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    directory = Path(tempfile.mkdtemp(prefix="crash-soak-"))
    progress = Progress(Console(), minutes)
    click.echo(f"again: make soak MINUTES={minutes:g} SEED={seed}; logs and data: {directory}")
    with progress.shown():
        report = soak(minutes, seed, directory, progress.watch)
    click.echo(table(report))
    if report.failures:
        click.echo("\n".join(["", *report.failures, f"evidence: {directory}"]), err=True)
        sys.exit(1)
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
