"""What each difference that llama-server's tests find is: meant, and why, or not ours to have."""

from typing import Literal, NamedTuple

Kind = Literal["passes", "purpose", "inapplicable", "unexplained", "stale"]


class Verdict(NamedTuple):
    """``stale``: a difference that is explained, and not there."""

    kind: Kind
    why: str = ""


_ENDS = "the demo model ends this answer by itself, tinyllama never"
_NO_PROXY = "there is no proxy for others' servers"
_TEXT = "moestream runs models that write text"
_BOS = "it shows tinyllama's BOS"
_COUNTS = "it counts tinyllama's tokens"
_SWITCH = "there is no switch: it has counts alone, and needs the key"
_REFUSED = "what another origin asks is refused with 403, not answered without a header"
_AFTER = "chances after sampling are not to be had: 400, never ignored in silence"
_ROUTER = "one server has one model, and streams are not kept for others to go on with"
_PICTURES = "moestream reads text alone"
_PICTURE_400 = "a picture is refused with 400: the request is wrong, not the server"
_CACHE = "the batch is the scheduler's to choose"

PURPOSE = {
    "basic.py::test_server_multiple_addresses": "it listens on one address; a proxy has others",
    "basic.py::test_server_slots": _SWITCH,
    "basic.py::test_server_model_aliases_and_tags": (
        "names are told in the order in which they were given, the file's last; there are no tags"
    ),
    "chat_completion.py::test_chat_completion[None-Book-What is the best book-8-^ blue*": (
        "a template that is a text has a block; else it is a file or a name"
    ),
    "completion.py::test_n_probs_post*": _AFTER,
    "template.py::test_date_inside_prompt[fireworks-ai-llama-3-firefunction-v2*": (
        "an undefined name cannot be added to a text, as in Jinja: the template wants functions"
    ),
    "security.py::test_cors_options[web.mydomain.fr-Access-Control-Allow-Methods*": (
        "DELETE is not among the methods: no path here has it"
    ),
    "security.py::test_cors_options[web.mydomain.fr-Access-Control-Allow-Headers-*]": (
        "the headers that are asked for are told: * does not cover Authorization"
    ),
    "security.py::test_cors_origins_localhost_rejects": _REFUSED,
    "security.py::test_cors_origins_defaults_to_localhost_with_tools_enabled": _REFUSED,
    "metrics.py::test_metrics_disabled": _SWITCH,
    "compat_oai_responses.py::test_responses_stream_with_llama_telemetry": (
        "an answer that the limit cuts off ends with response.incomplete, as OpenAI's does"
    ),
    "compat_anthropic.py::test_anthropic_tool_result_with_image": _PICTURE_400,
    "compat_anthropic.py::test_anthropic_vision_format_accepted": _PICTURE_400,
    "compat_anthropic.py::test_anthropic_empty_messages": (
        "no messages at all are refused with 400, as Anthropic does"
    ),
    "ctx_shift.py::test_ctx_shift_enabled": (
        "the context is not shifted: an answer ends where it is full"
    ),
}
INAPPLICABLE = {
    "basic.py::test_no_ui": "there is no page yet",
    "security.py::test_access_static_assets_without_api_key": "there is no page yet",
    "security.py::test_cors_proxy_only_forwards_explicit_proxy_headers": _NO_PROXY,
    "security.py::test_local_media_file[../../../tools-file://mtmd/test-1.jpeg-True]": _PICTURES,
    "security.py::test_local_media_file[../../../tools-file:////mtmd//test-1.jpeg-True]": _PICTURES,
    "compat_anthropic.py::test_anthropic_vision_base64_with_multimodal_model": _PICTURES,
    "metrics.py::test_metrics_embedding_prompt_is_counted": _TEXT,
    "stream.py::*": _ROUTER,
    "tokenize.py::test_tokenize_with_bos": "tinyllama's BOS is its token 1",
    "chat_completion.py::test_chat_completion_cached_tokens": _COUNTS,
    "chat_completion.py::test_chat_template": _BOS,
    "chat_completion.py::test_return_progress[64-4-False]": _CACHE,
    "completion.py::test_completion_response_fields[I believe the meaning of life is-32*": _BOS,
    "completion.py::test_nocache_long_input_prompt": _COUNTS,
    "completion.py::test_completion_prompt_cache": _COUNTS,
    "ctx_shift.py::test_ctx_shift_disabled_long_prompt": _COUNTS,
    "ctx_shift.py::test_ctx_shift_disabled_short_prompt[-1-248-True]": _ENDS,
    "completion.py::test_completion[Write a joke*": _ENDS,
    "completion.py::test_completion_stream[Write a joke*": _ENDS,
}
BY_CHANCE = {"chat_completion.py::test_return_progress[64-4-False]"}
"""Those that pass at times: a slow machine's batches are smaller."""


def verdict_of(test: str, outcome: str) -> Verdict:
    """What an outcome of a test is."""
    if outcome == "deselected":
        return Verdict("inapplicable", "it downloads models of several gigabytes")
    if outcome == "skipped":
        return Verdict("inapplicable", "llama-server's own tests leave it out")
    for kind, reasons in (("purpose", PURPOSE), ("inapplicable", INAPPLICABLE)):
        for pattern, why in reasons.items():
            if _is(test.removeprefix("unit/test_"), pattern):
                if outcome == "passed" and pattern in BY_CHANCE:
                    return Verdict("passes")
                return Verdict("stale" if outcome == "passed" else kind, why)  # type: ignore[arg-type]
    return Verdict("passes") if outcome == "passed" else Verdict("unexplained", outcome)


def _is(test: str, pattern: str) -> bool:
    """Whether a test is meant: by its name, with its parameters or without; * is any more."""
    if pattern.endswith("*"):
        return test.startswith(pattern[:-1])
    return pattern in (test, test.partition("[")[0])
