"""Variables that a library reads on its own and that would change a process without a word: taken out of its environment.

- ``PG…``: libpq's. What POSTGRES_DSN leaves open it takes from there: PGSSLMODE, PGHOST, PGSERVICE, PGPASSFILE. PGTZ, PGDATESTYLE
  and PGGEQO even go over what we ask of a session. POSTGRES_DSN can say all that they say.
- ``PROMETHEUS_MULTIPROC_DIR``: the metrics of a process would go to files there, and add up with those of a dead one.

The variables of boto3 stay: how the bridge logs in to AWS is boto3's business. Faust's are shut out where the App is made.
"""

import os

import prometheus_client.values

_PREFIX = "PG"
_NAMES = frozenset({"PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"})

_shut_out: set[str] = set()


def shut_out() -> None:
    """Remove them from this process's environment, before the first metric and the first connection."""
    for name in [name for name in os.environ if name.startswith(_PREFIX) or name in _NAMES]:
        del os.environ[name]
        _shut_out.add(name)
    # Chosen by that variable when the module was imported, which was before anything of ours ran.
    prometheus_client.values.ValueClass = prometheus_client.values.MutexValue


def names_shut_out() -> list[str]:
    """Those that were there, for whoever wonders why they do nothing."""
    return sorted(_shut_out)
