from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from bridges.metrics import ENTRY_RESULTS, OPERATIONS, REQUEST_RESULTS, BridgeMetrics
from bridges.sqs_queue import Answer


def test_every_label_value_is_there_from_the_start() -> None:
    samples = {
        (sample.name, *sample.labels.values())
        for family in text_string_to_metric_families(generate_latest(BridgeMetrics().registry).decode())
        for sample in family.samples
    }
    for operation in OPERATIONS:
        assert ("bridge_sqs_request_seconds_count", operation) in samples
        assert {("bridge_sqs_requests_total", operation, result) for result in REQUEST_RESULTS} <= samples
    for result in ENTRY_RESULTS:
        assert {("bridge_messages_deleted_total", result), ("bridge_visibility_extensions_total", result)} <= samples


def test_every_answer_is_a_label_value() -> None:
    assert {answer.value for answer in Answer} == set(ENTRY_RESULTS)


def test_all_our_names_begin_alike_and_say_what_they_are() -> None:
    families = list(text_string_to_metric_families(generate_latest(BridgeMetrics().registry).decode()))
    ours = [family for family in families if not family.name.startswith(("process_", "python_"))]
    assert ours
    assert all(family.name.startswith("bridge_") and family.documentation.endswith(".") for family in ours)
    assert {"process_cpu_seconds", "python_gc_collections"} <= {family.name for family in families}
