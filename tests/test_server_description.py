"""/openapi.json holds: schemathesis finds no failure of the server and no answer outside it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving import Served, serving

from moestream.server.schema import RESIDENCY, description

pytestmark = pytest.mark.slow
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
# The stream of the experts does not end; what it tells is in test_page_experts.py.
schema = schemathesis.openapi.from_dict(description()).exclude(path=RESIDENCY)


@pytest.fixture(scope="module")
def server(alphabet: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch, serving(alphabet, context=64) as served:
        patch.setenv("MOESTREAM_DATA", str(tmp_path_factory.mktemp("data")))
        yield served


@schema.parametrize()
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_as_described(case: schemathesis.Case, server: Served) -> None:
    case.call_and_validate(base_url=server.url, checks=CHECKS, timeout=60)
    assert not server.warnings
