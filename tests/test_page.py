"""The page's files as HTTP has them; what a browser makes of them is in test_page_browser.py."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from serving import Served, serving

from moestream.server.page import page_routes

MOST_BYTES = 150_000


@pytest.fixture(scope="module")
def server(alphabet: Path) -> Iterator[Served]:
    with serving(alphabet, keys=("secret",)) as served:
        yield served


def get(server: Served, path: str, **headers: str) -> httpx2.Response:
    return httpx2.get(server.url + path, headers=headers)


def test_all_files_are_there_without_a_key_and_lead_to_no_others(server: Served) -> None:
    files = {route.path: get(server, route.path) for route in page_routes()}
    assert {"/", "/page/main.js", "/page/page.css", "/page/icon.svg"} < set(files)
    assert all(file.status_code == 200 for file in files.values())
    assert sum(len(file.content) for file in files.values()) < MOST_BYTES
    named = re.findall(r'(?:src|href)="([^"#]+)"', files["/"].text)
    for path, file in files.items():
        if path.endswith(".js"):
            named += [f"/page/{name}" for name in re.findall(r'from "\./([^"]+)"', file.text)]
    assert named
    assert set(named) < set(files)


def test_the_policy_lets_nothing_run_but_the_files(server: Served) -> None:
    for route in page_routes():
        headers = get(server, route.path).headers
        rules = headers["content-security-policy"].split(";")
        policy = dict(rule.strip().partition(" ")[::2] for rule in rules)
        assert policy["default-src"] == "'none'"
        assert all(policy[f"{kind}-src"] == "'self'" for kind in ("script", "style", "connect"))
        assert policy["frame-ancestors"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"
    html = get(server, "/").text
    assert "style=" not in html
    assert "<style" not in html
    assert not re.search(r"\son\w+=|<script(?![^>]*src=)", html)


def test_nothing_reads_markup() -> None:
    """No script of the page has a way from text to elements."""
    ways = re.compile(
        r"(?:inner|outer|set|insertAdjacent)HTML|document\.write|DOMParser|eval\(|srcdoc"
    )
    for route in page_routes():
        text = route.endpoint.keywords["data"].decode()
        assert not ways.search(text), route.path


def test_a_file_that_a_browser_has_is_not_sent_again(server: Served) -> None:
    tag = get(server, "/page/main.js").headers["etag"]
    again = get(server, "/page/main.js", **{"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")


def test_a_key_is_wanted_for_all_that_tells_of_the_model(server: Served) -> None:
    for path in ("residency", "profiles", "profiles/x", "forecast"):
        assert get(server, f"/v1/moestream/{path}").status_code == 401
    assert get(server, "/page/nothing.js").status_code == 404
    assert get(server, "/page").status_code == 401


def test_it_can_be_left_out(alphabet: Path) -> None:
    with serving(alphabet, no_page=True) as served:
        for path in ("/", "/page/main.js", "/v1/moestream/residency", "/v1/moestream/forecast"):
            assert served.get(path).status_code == 404
