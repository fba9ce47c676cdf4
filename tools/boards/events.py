"""What is marked in the graphs of every board: pages, servers that are away, starts of processes."""

from collections.abc import Iterator
from typing import Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as model

SOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")

PAGES: Final = 'max by (alertname) (max_over_time(ALERTS{alertstate="firing",severity="page"}[$__rate_interval]))'
AWAY: Final = (
    "max_over_time((max by (job, dependency) (bridge_ready or stream_ready or monitor_ready) == bool 0)[$__rate_interval:])"
)
STARTS: Final = 'time() - process_start_time_seconds{job=~"bridge|worker|monitor"} < 60 + $__interval_ms / 1000'
"""Grafana asks once for each step of a graph: all three look back over a whole one, so that nothing falls between two of them."""


def events() -> Iterator[dashboard.AnnotationQuery]:
    """Each can be turned off at the board's head, where its name stands."""
    yield _event("Pages", "red", PAGES, "{{alertname}} pages")
    yield _event("Servers away", "orange", AWAY, "{{dependency}} answers no {{job}}")
    yield _event("Starts", "blue", STARTS, "{{instance}} ({{job}}) has started")


class _Titled(model.AnnotationQuery):
    """With the title of each event: the data source of Prometheus reads it, Grafana's own schema leaves it to the source."""

    title: str = ""

    def to_json(self) -> dict[str, object]:
        return {**super().to_json(), "titleFormat": self.title}


class _TitledBuilder(dashboard.AnnotationQuery):
    def __init__(self, title: str) -> None:
        super().__init__()
        self._internal = _Titled()
        self._internal.title = title


def _event(name: str, colour: str, expression: str, title: str) -> dashboard.AnnotationQuery:
    return _TitledBuilder(title).name(name).datasource(SOURCE).enable(True).icon_color(colour).expr(expression)
