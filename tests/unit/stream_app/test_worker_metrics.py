from typing import get_args

import psycopg2
import pytest
from login_records import SENT_AT_BOUNDS, batch_of, login, masker, records, sealer
from partition_gauges import partition_gauges

from pipeline.errors import FatalError, RetryableError
from stream_app.batch import STEPS, BatchBuilder, Step
from stream_app.metrics import DEPENDENCIES, WorkerMetrics
from stream_app.postgres.errors import RETRY_CLASSES, TlsRefusedError
from stream_app.postgres.pool import StatementResult
from stream_app.reasons import Reason
from stream_app.windows import Trigger


def value(metrics: WorkerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def caused_by(error: RetryableError, cause: BaseException) -> RetryableError:
    error.__cause__ = cause
    return error


def made_error(code: str) -> psycopg2.Error:
    class Made(psycopg2.Error):
        pgcode = code

    return Made()


def test_every_label_value_is_there_from_the_start() -> None:
    metrics = WorkerMetrics()
    for name, label, values in (
        ("stream_dead_letters_total", "reason", Reason),
        ("stream_batches_total", "trigger", Trigger),
        ("stream_database_retries_total", "sqlstate_class", RETRY_CLASSES),
        ("stream_statement_seconds_count", "result", get_args(StatementResult)),
        ("stream_ready", "dependency", DEPENDENCIES),
    ):
        assert [value(metrics, name, **{label: str(each)}) for each in values] == [0.0] * len(list(values))


def test_what_each_field_may_leave_off_is_there_from_the_start() -> None:
    (counter,) = (metric for metric in WorkerMetrics().registry.collect() if metric.name == "stream_values_reduced")
    assert {(sample.labels["field"], sample.labels["reduction"]) for sample in counter.samples} == {
        ("app_version", "build"),
        ("app_version", "rounded"),
        ("ip", "other_addresses"),
        ("ip", "port"),
        ("ip", "zone"),
        ("device_id", "no_value"),
    }


def test_all_our_names_begin_alike_and_say_what_they_are() -> None:
    ours = [metric for metric in WorkerMetrics().registry.collect() if not metric.name.startswith(("process_", "python_"))]
    assert len(ours) > 20
    assert [metric.name for metric in ours if not metric.name.startswith("stream_") or not metric.documentation.endswith(".")] == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (caused_by(RetryableError("stopping"), made_error("57P01")), "57"),
        (caused_by(RetryableError("read-only"), made_error("25006")), "25"),
        (caused_by(TlsRefusedError("expired"), psycopg2.OperationalError()), "tls"),
        (caused_by(RetryableError("nobody listens"), psycopg2.OperationalError()), "none"),
        (caused_by(RetryableError("of a class that is not known"), made_error("ZZ001")), "none"),
    ],
)
def test_statements_that_are_tried_again_are_counted_by_class(error: RetryableError, expected: str) -> None:
    metrics = WorkerMetrics()
    metrics.ran_statement("retryable", 0.5, error)
    assert value(metrics, "stream_database_retries_total", sqlstate_class=expected) == 1
    assert value(metrics, "stream_statement_seconds_sum", result="retryable") == 0.5


@pytest.mark.parametrize(
    ("next_offset", "oldest_seconds", "lag_seconds"),
    [(None, None, None), (None, 40.0, 60.0), (7, None, 0.0), (7, 40.0, 60.0)],
    ids=["not claimed", "not claimed, fetched", "nothing waits", "one waits"],
)
def test_a_partition_that_is_not_claimed_shows_no_lag_rather_than_a_lag_of_0(
    next_offset: int | None, oldest_seconds: float | None, lag_seconds: float | None
) -> None:
    metrics = WorkerMetrics()
    gauges = partition_gauges(next_offset=next_offset, log_end_offset=9, oldest_unwritten_seconds=oldest_seconds, stopped=True)
    metrics.serve_partitions(lambda: [gauges], lambda: 100.0)
    assert value(metrics, "stream_partition_lag_seconds", topic="logins", partition="0") == lag_seconds


def test_a_refused_statement_is_no_retry() -> None:
    metrics = WorkerMetrics()
    metrics.ran_statement("refused", 0.5, FatalError("a table is missing"))
    assert sum(value(metrics, "stream_database_retries_total", sqlstate_class=each) or 0 for each in RETRY_CLASSES) == 0


def test_what_a_fetch_brings_is_counted_once_a_fetch() -> None:
    metrics = WorkerMetrics()
    metrics.fetched(500, 700_000)
    assert value(metrics, "stream_records_received_total") == 500
    assert value(metrics, "stream_fetch_records_sum") == 500
    assert value(metrics, "stream_fetch_bytes_count") == 1


def test_keys_in_use_are_shown_by_id_and_which_of_them_masks() -> None:
    metrics = WorkerMetrics()
    keys = list(masker("ip=hmac").keys())
    metrics.use_keys(keys)
    assert {setting for setting, _, _ in keys} == {"MASKING_KEYSET_FILE", "MASKING_HMAC_KEYSET_FILE"}
    assert all(primary for _, _, primary in keys)  # these keysets have one key each
    for keyset, (_, key_id, _) in zip(("masking", "masking_hmac"), keys, strict=True):
        assert value(metrics, "stream_masking_key_info", keyset=keyset, key_id=str(key_id), primary="true") == 1


def test_a_batch_of_delays_falls_into_its_buckets() -> None:
    metrics = WorkerMetrics()
    now = 2_000_000.0
    delays = [3.0, -5.0, 0.06, 1_000_000.0, 0.05]
    metrics.sent_to_written.observe_all([int((now - delay) * 1000) for delay in delays], now)
    assert value(metrics, "stream_sent_to_written_seconds_bucket", le="0.05") == 2, "with the one whose sender's clock is ahead"
    assert value(metrics, "stream_sent_to_written_seconds_bucket", le="0.075") == 3
    assert value(metrics, "stream_sent_to_written_seconds_bucket", le="2.0") == 3
    assert value(metrics, "stream_sent_to_written_seconds_bucket", le="3.0") == 4
    assert value(metrics, "stream_sent_to_written_seconds_bucket", le="86400.0") == 4
    assert value(metrics, "stream_sent_to_written_seconds_count") == 5
    assert value(metrics, "stream_sent_to_written_seconds_sum") == pytest.approx(1_000_003.11)


def test_the_time_of_each_step_is_counted_once_a_slice() -> None:
    metrics = WorkerMetrics()
    taken: list[Step] = []

    def took_step(step: Step, seconds: float) -> None:
        taken.append(step)
        metrics.took_step(step, seconds)

    batch_of(records([login()] * 4), 0, 4, by=BatchBuilder(masker(), sealer(), SENT_AT_BOUNDS, on_step=took_step), slice_records=3)
    assert taken == [*STEPS, *STEPS]
    assert all((value(metrics, "stream_build_step_seconds_total", step=step) or 0) > 0 for step in STEPS)
