"""``python -m crash``: what of the fault suite is no test."""

import click

from crash.faults import all_faults


@click.group()
def main() -> None:
    """The fault suite beside pytest."""


@main.command("list")
def list_faults() -> None:
    """The name of each fault, one a line."""
    for name in all_faults():
        click.echo(name)


if __name__ == "__main__":
    main()
