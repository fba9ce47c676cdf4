"""What a process needs is loaded when it is ready: later there may be no file descriptor to load it with.

Faust looked for codecs of others at the first record, in files; a worker that could open none by then crashed.
"""

import json
import re
from pathlib import Path

from acceptance.running_pipeline import RunningPipeline, wait_until
from acceptance.test_worker import headers
from mypy_boto3_sqs import SQSClient

AUDIT = """
import os, sys

said = os.open(os.environ["AUDIT_DIRECTORY"] + f"/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def hook(event, arguments):
    if event in ("import", "open"):
        os.write(said, f"{event} {arguments[0]}\\n".encode())

sys.addaudithook(hook)
"""
"""Python runs this before the process's own code. The event ``import`` is raised for what is not loaded yet."""

OPENED_LATER = re.compile(r"open /proc/(self|\d+)/(stat|limits)")
"""By prometheus_client for each scrape, which goes without what it can't open."""

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
MESSAGES = 60


def test_nothing_is_imported_or_opened_after_the_start(
    pipeline: RunningPipeline, sqs: SQSClient, queue_url: str, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(AUDIT)
    pipeline.environment |= {"PYTHONPATH": str(site), "AUDIT_DIRECTORY": str(site)}
    pipeline.start_bridge()
    pipeline.wait_ready("bridge")
    pipeline.start_worker()
    pipeline.start_monitor()
    pipeline.wait_ready("worker", "monitor")
    said = {name: site / str(child.pid) for name, child in pipeline.running.items()}
    began = {name: path.stat().st_size for name, path in said.items()}
    assert all(size > 0 for size in began.values())

    def send(first: int) -> None:
        for number in range(first, first + MESSAGES):
            body = json.dumps({"user_id": f"user-{number}", "ip": "203.0.113.7"}) if number % 7 else "no json"
            sqs.send_message(QueueUrl=queue_url, MessageBody=body)

    def finished() -> int:
        return pipeline.count("user_logins") + pipeline.count("dead_letters")

    send(0)
    for number, codec in enumerate(CODECS):
        pipeline.produce([(b"k", b"nonsense", headers(number))], codec)
    wait_until(lambda: finished() == MESSAGES + len(CODECS), "all are rows or dead letters")
    sessions = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert len(pipeline.query(sessions)) >= 2, "worker and monitor are connected"
    send(MESSAGES)
    wait_until(lambda: finished() == 2 * MESSAGES + len(CODECS), "new connections are made")
    for name in pipeline.running:
        assert pipeline.scrape(name)
        assert pipeline.livez(name)[0] == 200
    names = list(pipeline.running)
    assert set(pipeline.stop(*names).values()) == {0}
    later = {name: said[name].read_bytes()[began[name] :].decode().splitlines() for name in names}
    unexpected = [f"{name}: {line}" for name, lines in later.items() for line in lines if not OPENED_LATER.fullmatch(line)]
    assert unexpected == []
