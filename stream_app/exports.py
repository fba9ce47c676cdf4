"""What comes with the code: boards, Prometheus's rules, the chain in containers. From a wheel, or from the checkout that runs.

In a wheel these files stand below ``stream_app/exported`` (pyproject.toml says which), in a checkout where they always do. The
packages themselves, which the image is built of, are where Python finds them.
"""

from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Final

PACKAGES: Final = ("pipeline", "bridges", "stream_app")
_EXPORTED: Final = "exported"
_COMPOSE: Final = (
    ".dockerignore",
    ".env.example",
    "Dockerfile",
    "LICENSE",
    "dev_servers/__init__.py",
    "dev_servers/made_up_logins.py",
    "docker",
    "docker-compose.yml",
    "grafana",
    "prometheus",
    "requirements.lock",
)


def exported(part: str) -> Mapping[PurePosixPath, bytes]:
    """The files of ``grafana``, ``prometheus`` or ``compose``, each by its path below the directory that is asked for.

    Raises :class:`FileNotFoundError` where the code stands alone, as in the image.
    """
    if part != "compose":
        return dict(_below(_root() / part))
    found: dict[PurePosixPath, bytes] = {}
    for name in _COMPOSE:
        place = _root() / name
        below = dict(_below(place)) if place.is_dir() else {PurePosixPath(): place.read_bytes()}
        found |= {name / path: content for path, content in below.items()}
    for package in PACKAGES:
        found |= {package / path: content for path, content in _below(Path(str(files(package)))) if path.parts[0] != _EXPORTED}
    return found


def _root() -> Path:
    package = Path(str(files("stream_app")))
    wheel = package / _EXPORTED
    return wheel if wheel.is_dir() else package.parent


def _below(directory: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    if not directory.is_dir():
        raise FileNotFoundError(directory)
    for file in sorted(directory.rglob("*")):
        if file.is_file() and file.suffix != ".pyc" and not file.name.endswith(".keyset.json"):
            yield PurePosixPath(file.relative_to(directory)), file.read_bytes()
