"""Fetches the peers that pip can fetch, and says of each peer whether it can run here: ``make bench-peers``."""

import subprocess
import sys

from benchmarks.peers import QUEUE_PEERS, TOPIC_PEERS
from benchmarks.peers.environments import EVERY


def main() -> int:
    """Its exit code: 1 when pip could not install something."""
    failed = 0
    for environment in EVERY:
        print(f"{environment.name}: as locked in {environment.lock.name}", flush=True)
        try:
            environment.make()
        except subprocess.CalledProcessError:
            failed = 1
    for work, peers in (("topic to Postgres", TOPIC_PEERS), ("queue to topic", QUEUE_PEERS)):
        print(f"\n{work}")
        for peer in peers:
            reason = peer.missing()
            print(f"  {peer.name}: {'ready' if reason is None else f'missing; {reason}'}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
