"""What libraries would read from the environment on their own is gone from it when settings are read."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from pipeline import foreign_variables
from pipeline.foreign_variables import names_shut_out
from pipeline.settings import KafkaSettings, load

PROJECT = Path(__file__).parents[3]


class _Option(ctypes.Structure):
    """libpq's PQconninfoOption."""

    _fields_ = (
        *((name, ctypes.c_char_p) for name in ("keyword", "envvar", "compiled", "val", "label", "dispchar")),
        ("dispsize", ctypes.c_int),
    )


def variables_of_libpq() -> Iterator[str]:
    """What the libpq that psycopg2 brings fills a connection's parameters from."""
    (library,) = Path(psycopg2.__file__).parents[1].glob("psycopg2_binary.libs/libpq-*")
    libpq = ctypes.CDLL(str(library))
    libpq.PQconndefaults.restype = ctypes.POINTER(_Option)
    options = libpq.PQconndefaults()
    place = 0
    while options[place].keyword is not None:
        if options[place].envvar is not None:
            yield options[place].envvar.decode()
        place += 1


LIBPQS_OWN = ("PGTZ", "PGDATESTYLE", "PGGEQO", "PGSERVICEFILE", "PGSYSCONFDIR", "PGLOCALEDIR", "PGREQUIRESSL")
"""Those that fill no parameter: libpq reads them by name."""


def test_no_variable_of_libpq_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {*variables_of_libpq(), *LIBPQS_OWN}
    assert {"PGHOST", "PGSSLMODE", "PGOPTIONS", "PGPASSFILE", "PGSERVICE"} <= names
    monkeypatch.setattr(foreign_variables, "_shut_out", set())
    for name in names:
        monkeypatch.setenv(name, "hunter2")
    load(KafkaSettings)
    assert names.isdisjoint(os.environ)
    assert names <= set(names_shut_out())


@pytest.mark.parametrize("name", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
def test_metrics_stay_in_the_process(name: str, tmp_path: Path) -> None:
    """Else they would lie in files there, where those of a dead process with the same id are found again."""
    code = (
        "from pipeline.settings import KafkaSettings, load; load(KafkaSettings)\n"
        "from bridges.metrics import BridgeMetrics; from stream_app.metrics import WorkerMetrics\n"
        "from stream_app.monitor.metrics import MonitorMetrics\n"
        "BridgeMetrics(); WorkerMetrics(); MonitorMetrics()"
    )
    environment = {"PATH": os.defpath, "PYTHONPATH": str(PROJECT), "PYTHONWARNINGS": "error", name: str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []
