"""/metrics for Prometheus: what is counted anyway, read when it is asked for.

Names begin with ``moestream_``; those of llama-server stand beside them where they mean the same.
"""

import itertools
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from moestream.server.state import State, state_of

_LLAMA = {
    "moestream_prompt_tokens_read": "llamacpp:prompt_tokens",
    "moestream_prompt_tokens_cached": "llamacpp:prompt_tokens_cached",
    "moestream_prompt_seconds": "llamacpp:prompt_seconds",
    "moestream_generated_tokens": "llamacpp:tokens_predicted",
    "moestream_generation_seconds": "llamacpp:tokens_predicted_seconds",
    "moestream_requests_running": "llamacpp:requests_processing",
    "moestream_requests_waiting": "llamacpp:requests_deferred",
    "moestream_passes": "llamacpp:n_decode",
    "moestream_drafts": "llamacpp:spec_decode_num_drafts",
    "moestream_drafted_tokens": "llamacpp:spec_decode_num_draft_tokens",
    "moestream_accepted_tokens": "llamacpp:spec_decode_num_accepted_tokens",
    "moestream_sequences_per_pass": "llamacpp:n_busy_slots_per_decode",
}


async def metrics(request: Request) -> Response:
    """All metrics, in the text format."""
    state = state_of(request)
    started = str(state.model.created)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Server(state))
    headers = {"process-start-time-unix": started}
    text = generate_latest(registry) + _longest(state)
    return Response(text, 200, headers, CONTENT_TYPE_PLAIN_0_0_4)


def _longest(state: State) -> bytes:
    """llama-server's counter of the longest sequence, whose name is none for the library."""
    name, told = "llamacpp:n_tokens_max", "Tokens of the longest sequence so far."
    value = float(state.activity.totals.longest)
    return f"# HELP {name} {told}\n# TYPE {name} counter\n{name} {value}\n".encode()


class _Server(Collector):
    """Reads the numbers."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """Tell each, and once more by llama-server's name."""
        counted = (self._requests(), self._tokens(), self._passes(), self._speeds())
        for each in itertools.chain(*counted, self._prefixes(), self._experts()):
            yield each
            if (name := _LLAMA.get(each.name)) is not None:
                again = _gauge_of if each.type == "gauge" else _counter_of
                yield again(name, each.documentation, each.samples[0].value)

    def _requests(self) -> Iterator[Metric]:
        activity = self._state.activity
        ended = CounterMetricFamily(
            "moestream_sequences", "Sequences that have ended, by how.", labels=["ended"]
        )
        for how, count in activity.totals.requests.items():
            ended.add_metric([how], count)
        yield ended
        running = len(activity.running)
        yield _gauge("requests_running", "Sequences that are read or answered now.", running)
        waiting = len(activity.sequences) - running
        yield _gauge("requests_waiting", "Sequences that wait for a place.", waiting)
        refused = activity.totals.refused
        yield _counter("requests_refused", "Requests that found no place.", refused)

    def _tokens(self) -> Iterator[Metric]:
        usage = self._state.activity.totals.usage
        read = usage.prompt_tokens - usage.cached_tokens
        yield _counter("prompt_tokens_read", "Tokens of prompts that were read.", read)
        cached = usage.cached_tokens
        yield _counter("prompt_tokens_cached", "Tokens of prompts that were read before.", cached)
        yield _counter("prompt_seconds", "Seconds of reading prompts.", usage.prompt_s)
        yield _counter("generated_tokens", "Tokens that were answered.", usage.generated_tokens)
        yield _counter("generation_seconds", "Seconds of answering.", usage.generation_s)
        yield _counter("queue_seconds", "Seconds that sequences waited.", usage.queue_s)
        longest = self._state.activity.totals.longest
        yield _gauge("sequence_tokens_max", "Tokens of the longest sequence so far.", longest)

    def _passes(self) -> Iterator[Metric]:
        totals = self._state.model.scheduler.totals
        yield _counter("passes", "Passes through the model.", totals.decodes)
        mean = totals.decoded / totals.decodes if totals.decodes else 0.0
        yield _gauge("sequences_per_pass", "Sequences in a pass, on the average.", mean)
        usage = self._state.activity.totals.usage
        yield _counter("drafts", "Passes with tokens that were guessed.", usage.drafts)
        yield _counter("drafted_tokens", "Tokens that were guessed and run.", usage.drafted_tokens)
        right = "Tokens that were guessed rightly."
        yield _counter("accepted_tokens", right, usage.accepted_tokens)

    def _speeds(self) -> Iterator[Metric]:
        """llama-server's averages."""
        usage = self._state.activity.totals.usage
        read = usage.prompt_tokens - usage.cached_tokens
        for name, tokens, seconds in (
            ("prompt_tokens_seconds", read, usage.prompt_s),
            ("predicted_tokens_seconds", usage.generated_tokens, usage.generation_s),
        ):
            speed = tokens / seconds if seconds else 0.0
            yield GaugeMetricFamily(f"llamacpp:{name}", "Tokens a second, so far.", value=speed)

    def _prefixes(self) -> Iterator[Metric]:
        prefixes = self._state.model.scheduler.prefixes
        yield _counter("prefix_hits", "Prompts whose beginning was kept.", prefixes.hits)
        told = "Tokens of prompts that were found kept in memory."
        yield _counter("prefix_hit_tokens", told, prefixes.hit_tokens)

    def _experts(self) -> Iterator[Metric]:
        """Of a model whose experts are streamed: no more than numbers that only need be read.

        The scheduler goes on meanwhile, and a look at every expert would keep all others waiting.
        """
        streaming = self._state.model.engine.streaming
        if streaming is None:
            return
        tally, seen = streaming.tally(), streaming.residency.counts
        for phase, counts in (("decode", seen.decode), ("prefill", seen.prefill)):
            for name, told, value in (
                ("hits", "Experts that were in memory when a layer asked", counts.hits),
                ("misses", "Experts that were not", counts.misses),
                ("stall_seconds", "Seconds that layers waited for experts", counts.stall_s),
            ):
                yield _counter(f"{phase}_{name}", f"{told}, in {phase}.", value)
        asked = tally.hits + tally.misses
        rate = tally.hits / asked if asked else 0.0
        yield _gauge("hit_rate", "Share of experts in memory when asked for, in decode.", rate)
        yield _counter("read_bytes", "Bytes of experts that were read.", tally.read_bytes)
        yield _gauge("pinned_bytes", "Bytes of experts that are pinned.", tally.pinned_bytes)


def _counter(name: str, told: str, value: float) -> Metric:
    return _counter_of(f"moestream_{name}", told, value)


def _gauge(name: str, told: str, value: float) -> Metric:
    return _gauge_of(f"moestream_{name}", told, value)


def _counter_of(name: str, told: str, value: float) -> Metric:
    return CounterMetricFamily(name, told, value=value)


def _gauge_of(name: str, told: str, value: float) -> Metric:
    return GaugeMetricFamily(name, told, value=value)
