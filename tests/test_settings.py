from dataclasses import fields
from types import SimpleNamespace

import pytest

from moestream.chat.settings import Settings
from moestream.declare import declared
from moestream.engine.engine import context_of
from moestream.engine.loading import EngineOptions
from moestream.engine.options import SamplingParams


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("temp", "0", "0.0"),
        ("temperature", "1.5", "1.5"),
        ("TOP-K", "7", "7"),
        ("top_p", "0.5", "0.5"),
        ("repeat-last-n", "-1", "-1"),
        ("presence-penalty", "-0.5", "-0.5"),
        ("seed", "42", "42"),
        ("mirostat-lr", "0.2", "0.2"),
        ("samplers", "kt", "top_k;temperature"),
        ("ignore-eos", "on", "on"),
        ("predict", "10", "10"),
        ("predict", "-1", "-1"),
        ("reasoning", "hide", "hide"),
        ("context-shift", "on", "on"),
        ("reasoning-effort", "low", "low"),
        ("reasoning-effort", "auto", "auto"),
        ("chat-template-kwargs", '{"a": [1]}', '{"a": [1]}'),
    ],
)
def test_what_is_set_is_shown(name: str, value: str, shown: str) -> None:
    settings = Settings()
    settings.set(name, value)
    key = name.lower().replace("_", "-").replace("temperature", "temp")
    assert dict(settings.shown())[key] == shown
    others = Settings()
    others.set(name, value)
    assert settings == others


def test_every_sampling_parameter_can_be_set_to_what_is_shown() -> None:
    settings = Settings(SamplingParams(seed=5))
    many = ("dry_sequence_breakers", "logit_bias")
    assert len(settings.shown()) == len(fields(SamplingParams)) - len(many) + 5
    for name, value in settings.shown():
        settings.set(name, value)
    assert settings == Settings(SamplingParams(seed=5))


def test_a_seed_of_minus_one_draws_one() -> None:
    settings = Settings()
    settings.set("seed", "-1")
    assert settings.sampling.seed is not None
    assert 0 <= settings.sampling.seed < 2**32


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("tmp", "1", "'tmp'; did you mean temp"),
        ("colour", "1", "'colour'; temp, top-k, "),
        ("temp", "hot", "temp is 'hot', expected a number of 0 or more"),
        ("temp", "-1", "temp is -1.0, expected a number of 0 or more"),
        ("temp", "nan", "temp is nan, expected a number of 0 or more"),
        ("top-k", "1.5", "top-k is '1.5', expected a whole number of 0 or more"),
        ("seed", "-2", "seed is '-2', expected a whole number of 0 to 4294967295, or -1"),
        ("predict", "many", "predict is 'many', expected a whole number"),
        ("reasoning", "loud", "reasoning is 'loud', expected one of show, dim, hide"),
        ("context-shift", "1", "context-shift is '1', expected on or off"),
    ],
)
def test_what_cannot_be_says_what_can(name: str, value: str, complaint: str) -> None:
    settings = Settings()
    with pytest.raises(ValueError, match=complaint):
        settings.set(name, value)
    assert settings == Settings()


def test_llama_cpps_values_mean_what_they_mean_there() -> None:
    engine, sampling = declared(EngineOptions), declared(SamplingParams)
    assert engine["context_length"].parse("0") == 0
    assert engine["threads"].parse("-1") is None
    assert sampling["top_k"].parse("-1") == sampling["top_k"].parse("0") == 0
    assert sampling["top_p"].parse("0") == 0
    predict = declared(Settings)["max_tokens"]
    assert predict.parse("-1") is predict.parse("-2") is None
    config = SimpleNamespace(context_length=100_000)
    for asked, tokens in ((None, 8192), (0, 100_000), (5, 5)):
        assert context_of(config, asked) == tokens  # type: ignore[arg-type]
