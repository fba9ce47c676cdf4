"""A worker that can't write, or not yet, takes no partition from one that does."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from acceptance.running_pipeline import RunningPipeline, wait_until
from acceptance.test_worker import logins
from psycopg2.extensions import make_dsn

from dev_servers.ports import free_port
from dev_servers.postgres import Postgres
from pipeline.ending import EXIT_REFUSED

ENDS_SECONDS = 30.0
"""Most of it is the time in which five processes import what they need."""


@pytest.fixture
def login(pipeline: RunningPipeline) -> Iterator[str]:
    """A login without the writer's role."""
    name = pipeline.topic.replace("-", "_")
    pipeline.query(f"CREATE ROLE {name} LOGIN PASSWORD 'right'")
    yield name
    pipeline.query(f"DROP ROLE {name}")


def last_line(pipeline: RunningPipeline, name: str) -> str:
    return pipeline.log(name).splitlines()[-1]


def said_that_it_waits(pipeline: RunningPipeline, name: str) -> bool:
    return " start_waits " in pipeline.log(name)


def test_a_worker_that_cannot_write_takes_no_partition_from_one_that_can(
    pipeline: RunningPipeline, login: str, tmp_path: Path
) -> None:
    pipeline.start_worker("good")
    pipeline.wait_ready("good")
    pipeline.produce(logins(range(1_000)))
    pipeline.wait_drained()
    rebalances = pipeline.metric("good", "stream_rebalances_total")
    pipeline.run("keys", "create", "--directory", str(tmp_path / "others"))
    faults = {
        "no-database": ({"POSTGRES_DSN": make_dsn(pipeline.dsn, dbname="no_such")}, "correct POSTGRES_DSN"),
        "no-password": ({"POSTGRES_DSN": make_dsn(pipeline.dsn, user=login, password="wrong")}, "POSTGRES_PASSWORD_FILE"),
        "no-role": ({"POSTGRES_DSN": make_dsn(pipeline.dsn, user=login, password="right")}, "can GRANT it"),
        "no-keys": ({"MASKING_KEYSET_FILE": str(tmp_path / "others" / "masking.keyset.json")}, "KEYSET_MISMATCH=accept"),
        "no-keyset": (
            {"MASKING_KEYSET_FILE": str(tmp_path / "none.json")},
            "MASKING_KEYSET_FILE: the file it names does not exist",
        ),
    }
    workers = {name: pipeline.start_worker(name, **settings) for name, (settings, _) in faults.items()}
    codes = {name: worker.wait(ENDS_SECONDS) for name, worker in workers.items()}
    assert codes == dict.fromkeys(faults, EXIT_REFUSED)
    for name, (_, says) in faults.items():
        pipeline.running.pop(name)
        assert says in last_line(pipeline, name)
        assert "Traceback" not in pipeline.log(name)
        assert "partition" not in pipeline.log(name)
    pipeline.produce(logins(range(1_000, 2_000)))
    pipeline.wait_drained()
    assert pipeline.metric("good", "stream_rebalances_total") == rebalances


def test_a_worker_that_cannot_write_yet_waits_outside_the_group(pipeline: RunningPipeline, postgres: Postgres) -> None:
    empty = postgres.create_database()
    try:
        pipeline.start_worker("good")
        pipeline.wait_ready("good")
        rebalances = pipeline.metric("good", "stream_rebalances_total")
        pipeline.start_worker("early", POSTGRES_DSN=empty)
        pipeline.start_worker("lost", POSTGRES_DSN=f"postgresql://127.0.0.1:{free_port()}/x")
        for name, says in (("early", "migrate"), ("lost", "nobody listens")):
            wait_until(partial(said_that_it_waits, pipeline, name), "it says so")
            status, text = pipeline.readyz(name)
            assert (status, says in json.loads(text)["waiting_for"]["postgres"]) == (503, True)
            assert pipeline.livez(name)[0] == 200
        assert pipeline.stop("lost") == {"lost": 0}
        assert pipeline.metric("good", "stream_rebalances_total") == rebalances
        pipeline.run("migrate", POSTGRES_DSN=empty)
        pipeline.wait_ready("early")
        assert "start_goes_on" in pipeline.log("early")
        assert pipeline.metric("good", "stream_rebalances_total") > rebalances
    finally:
        pipeline.stop_all()
        postgres.drop_database(empty)
