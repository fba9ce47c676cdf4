"""`faust -A stream_app export`: the boards, rules and containers that come with the code, as files."""

from pathlib import Path

import click

from stream_app.commands.command import QuietCommand, cli, say
from stream_app.exports import exported

NEXT = {
    "grafana": "provisioning looks for the boards in /etc/grafana/dashboards, and for Prometheus at prometheus:9090",
    "prometheus": "rules/ goes below rule_files; prometheus.yml and alertmanager.yml are examples",
    "compose": "docker compose up --build -d, in that directory",
}


@cli.command(cls=QuietCommand)
@click.argument("part", type=click.Choice(sorted(NEXT)))
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace files that are there and differ; without, they stop it.")
def export(part: str, directory: Path, *, overwrite: bool) -> None:
    """Write boards, alerts or the chain in containers.

    grafana: the boards and their provisioning. prometheus: rules, their tests, and examples of prometheus.yml and alertmanager.yml.
    compose: all that `docker compose up --build` needs. What they are to this version of the code; nothing is downloaded.
    """
    try:
        content = {directory / path: text for path, text in exported(part).items()}
    except FileNotFoundError as error:
        raise click.ClickException("the code stands alone here, as in the image: export where the wheel is installed") from error
    try:
        different = [file for file, text in content.items() if file.exists() and file.read_bytes() != text]
        if not different or overwrite:
            for file, text in content.items():
                file.parent.mkdir(parents=True, exist_ok=True)
                scratch = file.with_name(f".{file.name}.new")
                scratch.write_bytes(text)
                scratch.replace(file)  # whole or not at all, and what a link points to is let alone
    except OSError as error:
        raise click.ClickException(f"{error.filename} can't be written: {error.strerror}") from error
    if different and not overwrite:
        more = f", and {len(different) - 1} more files do" if len(different) > 1 else ""
        raise click.ClickException(f"{different[0]} is there and differs{more}: --overwrite replaces them")
    say(f"{len(content)} files in {directory}: {NEXT[part]}")
