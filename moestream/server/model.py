"""The model that is served: its names, and what turns a request into tokens and back."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from moestream.chat.reasoning import Markers, find_markers
from moestream.chat.template import ChatTemplate
from moestream.chat.thinking import Thinking
from moestream.chat.tool_calls import GENERIC, ToolFormat, find_tool_format
from moestream.closing import Closing
from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.errors import TemplateError
from moestream.grammars import Grammars
from moestream.layers.moe import RouteObserver
from moestream.prompt_cache import PromptCache
from moestream.server.errors import APIError
from moestream.server.onlookers import Onlookers
from moestream.server.options import ServerOptions
from moestream.server.residency import Collector
from moestream.server.scheduler import Scheduler
from moestream.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a request that does not say so gets."""

    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    special: bool = False
    """As in ``ChatTemplate.render``."""
    thinking: Thinking = field(default_factory=Thinking)
    system: str | None = None
    """The system prompt of a chat that has none."""


@dataclass(slots=True)
class Model(Closing):
    """An open engine and what belongs to it; closing it ends the scheduler, not the engine."""

    names: tuple[str, ...]
    """What requests may call it; the first is what answers call it."""
    engine: Engine
    tokenizer: Tokenizer
    scheduler: Scheduler
    onlookers: Onlookers
    defaults: Defaults
    _template: ChatTemplate | None
    _no_template: str = ""
    markers: Markers | None = None
    tool_format: ToolFormat | None = None
    most_sequences: int = 1
    """Of one request; more would find no place even if there were no other."""
    created: int = field(default_factory=lambda: int(time.time()))
    _grammars: Grammars | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(
        cls,
        engine: Engine,
        names: Sequence[str],
        options: ServerOptions,
        defaults: Defaults,
        *,
        chat_template: str | None = None,
        prompt_cache: PromptCache | None = None,
        on_route: RouteObserver | None = None,
    ) -> Self:
        """Make ready what the requests need.

        ``on_route`` is called on the scheduler's thread, a layer's rows before the next layer's.

        Raises:
            TemplateError: ``chat_template`` is none; a model without one of its own is served.
            UnsupportedModelError, ModelFormatError: it has no tokenizer.
        """
        tokenizer = Tokenizer.from_gguf(engine.file)
        template, missing = None, ""
        try:
            template = ChatTemplate.from_gguf(engine.file, tokenizer, override=chat_template)
        except TemplateError:
            if chat_template is not None or "tokenizer.chat_template" in engine.file.metadata:
                raise
            missing = "this model has no chat template; use /v1/completions"
        scheduler = Scheduler(
            engine,
            parallel=options.parallel,
            waiting=options.waiting,
            on_route=on_route,
            prompt_cache=prompt_cache,
        )
        markers, tool_format = None, None
        if template is not None:
            markers = find_markers(template.source, tokenizer)
            tool_format = find_tool_format(template.source, tokenizer) or GENERIC
        return cls(
            tuple(dict.fromkeys(names)),
            engine,
            tokenizer,
            scheduler,
            Onlookers(Collector(engine), scheduler),
            defaults,
            template,
            missing,
            markers,
            tool_format,
            options.parallel + options.waiting,
        )

    @property
    def grammars(self) -> Grammars:
        """Its constraints; made when they are first asked for, as it takes a second.

        Raises:
            RequestError: it has no token that ends an answer.
        """
        with self._lock:
            if self._grammars is None:
                self._grammars = Grammars(self.tokenizer, self.tokenizer.end_ids)
            return self._grammars

    @property
    def name(self) -> str:
        """What answers call it."""
        return self.names[0]

    @property
    def context(self) -> int:
        """Tokens that one sequence can have."""
        return self.engine.context_length

    @property
    def template(self) -> ChatTemplate:
        """Its chat template.

        Raises:
            APIError: it has none.
        """
        if self._template is None:
            raise APIError(400, self._no_template, param="messages")
        return self._template

    @property
    def template_source(self) -> str:
        """The template's text; empty where there is none."""
        return "" if self._template is None else self._template.source

    def check_name(self, name: str | None) -> None:
        """See that this model is meant.

        Raises:
            APIError: it is another.
        """
        if name and name not in self.names:
            known = ", ".join(self.names)
            raise APIError(
                400,
                f"there is no model {name!r} here, but {known}; --alias gives it more names",
                param="model",
                type="model_not_found_error",
            )

    def check_sequences(self, prompts: int, choices: int) -> None:
        """See that there could be places for all choices of all prompts of a request.

        Raises:
            APIError: there could not.
        """
        if prompts * choices > self.most_sequences:
            raise APIError(
                400,
                f"the request asks for {prompts} times {choices} answers, expected at most "
                f"{self.most_sequences} in all: send several requests, or start the server with "
                "a larger --waiting",
                param="n" if prompts == 1 else "prompt",
            )

    def close(self) -> None:
        """End the scheduler."""
        self.scheduler.close()
