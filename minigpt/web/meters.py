"""What a running server tells Prometheus at /metrics, in a registry of its own.

minigpt_requests_total{route, status}          minigpt_tokens_total{kind="prompt" | "written"}
minigpt_rows (being written)                   minigpt_waiting (for a row)
minigpt_first_token_seconds (histogram)        minigpt_token_seconds (histogram, from token to token)
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
EACH = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Meters:
    """
    >>> meters = Meters()
    >>> meters.tokens.labels("written").inc(3)
    >>> meters.registry.get_sample_value("minigpt_tokens_total", {"kind": "written"})
    3.0
    """

    def __init__(self):
        self.registry = CollectorRegistry()
        more = {"registry": self.registry}
        self.requests = Counter("minigpt_requests", "Requests answered", ["route", "status"], **more)
        self.tokens = Counter("minigpt_tokens", "Tokens read (prompt) and written", ["kind"], **more)
        self.rows = Gauge("minigpt_rows", "Texts being written", **more)
        self.waiting = Gauge("minigpt_waiting", "Texts that wait for a row", **more)
        self.first = Histogram("minigpt_first_token_seconds", "From asking to the first token", buckets=FIRST, **more)
        self.each = Histogram("minigpt_token_seconds", "From a token to the next", buckets=EACH, **more)

    def watch(self, engine):
        """Rows and waiting texts are asked of the engine whenever someone looks."""
        self.rows.set_function(lambda: engine.live)
        self.waiting.set_function(lambda: engine.waiting)
