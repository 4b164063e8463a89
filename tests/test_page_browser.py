"""The page in a real browser, against a real server: skipped where there is no Chromium."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alphabet_model import ALPHABET, write_alphabet_model
from serving import Served, serving
from streamed import options_of, plan

from moestream.profiles.names import load_profile

api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
axe = pytest.importorskip("axe_playwright_python.base", reason="needs axe")

_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]
WAIT_MS = 15_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A model that writes the alphabet for ever, its experts streamed."""
    path = tmp_path_factory.mktemp("page") / "endless.gguf"
    write_alphabet_model(path, follows={"z": "a"})
    with serving(path, context=1 << 15) as served:
        engine = served.model.engine
        share = sum(t.n_bytes for n, t in engine.file.tensors.items() if "_exps" in n) * 3 // 4
        engine.stream(plan(share), options_of(io="pread"))
        yield served


class Page:
    """A fresh browser's page of the server, and what went wrong in it."""

    def __init__(self, browser: Any, url: str, **settings: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 800}, **settings)
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", self._hear)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.url = url
        self.limit(30)
        self.page.goto(url)

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(message.text)

    def limit(self, tokens: int) -> None:
        told = json.dumps({"max_tokens": tokens})
        once = "localStorage.getItem('moestream.settings') ??"
        self.context.add_init_script(f"{once} localStorage.setItem('moestream.settings', '{told}')")

    def set_limit(self, tokens: int) -> None:
        """Of answers, from now on, by the page's own settings."""
        self.page.click("#show-settings")
        self.page.fill("[name=max_tokens]", str(tokens))
        self.page.click("#settings [type=submit]")

    def give(self, field: str, name: str, text: str) -> None:
        """Give a file to a field for files."""
        file = {"name": name, "mimeType": "text/plain", "buffer": text.encode()}
        self.page.set_input_files(field, file)

    def show_experts(self) -> None:
        self.page.wait_for_selector("#chip-text:has-text('in memory')")
        self.page.click("#show-experts")
        self.page.wait_for_selector(".legend li")

    def ask_to_save(self) -> None:
        """Have an answer, and the question under which name its experts are to be saved."""
        self.show_experts()
        self.ask("go")
        self.page.wait_for_selector("text=Its experts")
        self.page.click("text=Save what is shown as a profile")

    def has_written(self, letters: int) -> None:
        """Wait until there are more."""
        self.until(f"document.querySelector('.words')?.textContent.length > {letters}")

    def until(self, what: str) -> None:
        """Wait for it, asking from here: the page's policy lets no text be run within it."""
        ends = time.monotonic() + WAIT_MS / 1000
        while not self.page.evaluate(what):
            assert time.monotonic() < ends, what
            self.page.wait_for_timeout(30)

    def ask(self, text: str, *, wait: bool = True) -> None:
        self.page.fill("#text", text)
        self.page.press("#text", "Enter")
        if wait:
            self.done()

    def done(self) -> None:
        self.page.wait_for_selector("#stop", state="hidden")

    def answers(self) -> list[str]:
        return self.page.locator(".assistant .words").all_inner_texts()


@pytest.fixture
def tab(browser: Any, server: Served) -> Iterator[Page]:
    tab = Page(browser, server.url)
    yield tab
    tab.context.close()
    assert not tab.wrong
    assert all(url.startswith((server.url, "blob:")) for url in tab.asked)


LETTERS = ALPHABET[:26]
TOLD = (LETTERS * 2)[:30]


def test_two_turns_and_a_reload(tab: Page) -> None:
    tab.ask("one")
    tab.ask("two")
    assert tab.answers() == [TOLD, TOLD]
    assert "tok/s" in tab.page.locator(".assistant .figures").last.inner_text()
    assert "of the prompt was there" in tab.page.locator(".assistant .figures").last.inner_text()
    assert re.search(r"\d+ of 32,768 tokens", tab.page.inner_text("#meter"))
    tab.page.reload()
    tab.page.wait_for_selector(".assistant .words")
    assert tab.answers() == [TOLD, TOLD]
    assert tab.page.locator("#chat-list li").all_inner_texts() == ["one"]


def test_stop_keeps_what_was_written_and_it_can_go_on(tab: Page) -> None:
    tab.set_limit(30_000)
    tab.ask("go", wait=False)
    tab.has_written(100)
    tab.page.keyboard.press("Escape")
    tab.done()
    assert tab.page.locator(".trouble").inner_text() == "Stopped."
    (written,) = tab.answers()
    assert written.startswith(LETTERS)
    tab.page.click("[aria-label='Go on with this answer']")
    tab.has_written(len(written) + 50)
    tab.page.click("#stop")
    tab.done()
    assert tab.answers()[0].startswith(written)


def test_versions_of_questions_and_answers(tab: Page) -> None:
    tab.ask("first wording")
    tab.page.click("[aria-label='Answer again']")
    tab.done()
    assert tab.page.locator(".branches").inner_text() == "2 / 2"
    tab.page.click("[aria-label=Edit]")
    tab.page.fill("[aria-label='Edit the message']", "second wording")
    tab.page.press("[aria-label='Edit the message']", "Enter")
    tab.done()
    assert tab.page.locator(".said").all_inner_texts() == ["second wording"]
    tab.page.locator(".user [aria-label='Version before']").click()
    assert tab.page.locator(".said").all_inner_texts() == ["first wording"]
    assert tab.page.locator(".assistant .branches").inner_text() == "2 / 2"


LISTEN = """
const look = () => {
  const told = document.querySelector(".reading:not([hidden]) span");
  if (told) (window.seen ??= []).push(told.textContent);
};
const all = { subtree: true, childList: true, characterData: true, attributes: true };
new MutationObserver(look).observe(document.body, all);
"""


def test_a_long_prompt_tells_how_far_it_is(tab: Page) -> None:
    tab.page.evaluate(f"() => {{ {LISTEN} }}")
    tab.give("#files", "long.txt", "words and words " * 150)
    tab.page.wait_for_selector("#attached:has-text('long.txt')")
    tab.ask("and now?")
    assert tab.answers() == [TOLD]
    seen = tab.page.evaluate("window.seen ?? []")
    assert any(re.match(r"Reading the prompt: [\d,]+ of 2,4\d\d tokens", told) for told in seen)


def test_the_map_changes_while_an_answer_is_written(tab: Page) -> None:
    page = tab.page
    tab.set_limit(20_000)
    tab.show_experts()
    assert page.locator(".legend li").count() == 7
    page.wait_for_timeout(200)
    picture = "document.querySelector('canvas').toDataURL()"
    before = page.evaluate(picture)
    tab.ask("go", wait=False)
    tab.until(f"{picture} !== {json.dumps(before)}")
    page.click("#stop")
    tab.done()
    page.focus("canvas")
    page.keyboard.press("ArrowRight")
    tab.until("document.querySelector('.detail').textContent.includes('Used')")
    told = r"Layer 0, expert 0: [\w ]+, 99 KiB\. Used [\d,]+ times"
    assert re.match(told, page.inner_text(".detail"))
    page.click("text=Its experts")
    tab.until("document.querySelector('.told').textContent.includes('tokens used')")
    page.click("summary:has-text('As a table')")
    tab.until("document.querySelector('.experts .table').innerText.includes('50 %')")


def test_a_profile_is_saved_and_compared(
    tab: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOESTREAM_DATA", str(tmp_path))
    page = tab.page
    tab.ask_to_save()
    page.fill("#ask-input", "letters")
    page.press("#ask-input", "Enter")
    page.wait_for_selector("text=Saved.")
    assert (tmp_path / "profiles" / "letters.json").exists()
    page.select_option("#show-b", "profile letters")
    tab.until("document.querySelector('.told').textContent.includes('are the same')")
    assert page.inner_text(".told").startswith("100 %")
    assert "more in profile letters" in page.inner_text(".legend")
    first = load_profile("letters").tokens
    tab.ask("more")
    page.locator("text=Its experts").nth(1).wait_for()
    page.click("text=Save what is shown as a profile")
    page.fill("#ask-input", "letters")
    page.press("#ask-input", "Enter")
    page.click("#ask button:has-text('Replace')")
    page.wait_for_selector("text=Saved.")
    assert load_profile("letters").tokens > first


def test_answers_are_compared_by_what_was_asked(tab: Page) -> None:
    page = tab.page
    tab.show_experts()
    for question in ("an Italian story", "a Python function"):
        tab.ask(question)
        page.locator(f"#show-b option:has-text('{question}')").wait_for(state="attached")
    page.locator("text=Its experts").first.click()
    page.select_option("#show-b", label="a Python function")
    tab.until("document.querySelector('.told').textContent.includes('are the same')")
    legend = page.inner_text(".legend")
    assert "more in “an Italian story”" in legend
    assert "more in “a Python function”" in legend


def test_the_map_can_have_the_whole_width(tab: Page) -> None:
    tab.show_experts()
    width = "document.querySelector('canvas').clientWidth"
    before = tab.page.evaluate(width)
    tab.page.click("[aria-label='Use the whole width']")
    tab.until(f"{width} > {2 * before}")
    tab.page.click("[aria-label='Close the experts']")
    assert tab.page.evaluate("document.activeElement.id") == "show-experts"


HOSTILE = (
    "<script>window.hacked = 1</script> <img src=x onerror='window.hacked = 1'> "
    "[one](javascript:window.hacked=1) [two](data:text/html,x) "
    "<a href='javascript:window.hacked=1'>x</a> "
    "![three](https://elsewhere.example/x.png)\n\n"
)
ROW = "| <img src=x onerror='window.hacked = 1'> | <b>b</b> |\n"


def test_hostile_answers_are_text(tab: Page) -> None:
    """The model is made to say it by a grammar; all else is as ever."""
    said = json.dumps(HOSTILE + "| a | b |\n|---|---|\n")
    grammar = f"root ::= {said} ({json.dumps(ROW)}){{20}}"

    def force(route: Any) -> None:
        body = {**route.request.post_data_json, "grammar": grammar, "max_tokens": 20_000}
        route.continue_(post_data=json.dumps(body))

    tab.page.route("**/v1/chat/completions", force)
    tab.ask("go")
    text = tab.answers()[0]
    assert "<script>window.hacked = 1</script>" in text
    assert text.count("<b>b</b>") == 20
    found = "[...document.querySelectorAll('.words *')].map((each) => each.localName)"
    kinds = set(tab.page.evaluate(found))
    assert kinds <= {"p", "a", "span", "div", "table", "thead", "tbody", "tr", "th", "td"}
    links = "[...document.querySelectorAll('.words a')].map((each) => each.href)"
    assert tab.page.evaluate(links) == ["https://elsewhere.example/x.png"]
    assert tab.page.evaluate("window.hacked") is None


MARKDOWN = """# T

**b** *i* `c` [l](https://a.example)

- x
  - y

1. z

> q

```py
<b>
```

|a|b|
|-|-:|
|1|2|
"""
SHOWN = {
    "h3": "T",
    "strong": "b",
    "em": "i",
    "p code": "c",
    "ul ul li": "y",
    "ol li": "z",
    "blockquote": "q",
    "pre": "<b>",
    "td.end": "2",
}


def test_markdown_becomes_what_it_means(tab: Page) -> None:
    asked = {"parent": None, "children": ["1"], "shown": "1", "role": "user", "content": "?"}
    answer = {"parent": "0", "role": "assistant", "content": MARKDOWN, "reasoning": "hm *so*"}
    messages = {"0": asked, "1": answer}
    chat = {"title": "imported", "roots": ["0"], "shown": "0", "messages": messages}
    told = {"format": "moestream conversations", "version": 1, "conversations": [chat]}
    tab.give("#import-file", "x.json", json.dumps(told))
    tab.page.click(".title:has-text('imported')")
    for kind, shown in SHOWN.items():
        assert tab.page.locator(f".words {kind}").inner_text() == shown
    assert tab.page.locator(".words a").get_attribute("rel") == "noopener noreferrer"
    tab.page.click("summary:has-text('Reasoning')")
    assert tab.page.locator(".thought em").inner_text() == "so"
    with tab.page.expect_download() as download:
        tab.page.click("#export")
    again = json.loads(Path(download.value.path()).read_text())["conversations"][0]
    assert [each["content"] for each in again["messages"].values()] == ["?", MARKDOWN]


def test_a_huge_table_is_shown_as_it_was_written(tab: Page) -> None:
    rows = "|a|b|\n|-|-|\n" + ROW * 5000
    asked = {"parent": None, "children": ["1"], "shown": "1", "role": "user", "content": rows}
    messages = {"0": asked, "1": {"parent": "0", "role": "assistant", "content": rows}}
    chat = {"title": "huge", "roots": ["0"], "shown": "0", "messages": messages}
    told = {"format": "moestream conversations", "version": 1, "conversations": [chat]}
    tab.give("#import-file", "x.json", json.dumps(told))
    tab.page.click(".title:has-text('huge')")
    assert tab.page.locator(".words pre").text_content() == rows.strip()
    assert tab.page.evaluate("document.querySelectorAll('*').length") < 500
    assert tab.page.evaluate("window.hacked") is None


def test_what_breaks_is_said_and_nothing_is_lost(browser: Any, tmp_path: Path) -> None:
    path = write_alphabet_model(tmp_path / "endless.gguf", follows={"z": "a"})
    with serving(path, context=256, keys=("right",)) as served:
        tab = Page(browser, served.url)
        tab.page.fill("#ask-input", "right")
        tab.page.press("#ask-input", "Enter")
        tab.page.wait_for_selector("#model:has-text('alphabet')")
        tab.ask("x" * 400)
        assert "longer than the model's context" in tab.page.locator(".trouble").inner_text()
        tab.page.click("#new-chat")
        tab.set_limit(-1)
        tab.ask("go")
        assert "The context is full." in tab.page.locator(".trouble").inner_text()
        tab.page.click("[aria-label='Answer again']")
        served.listener.close()
        tab.done()
        tab.page.wait_for_selector("#chip-text:has-text('Server gone')")
        assert "The server does not answer" in tab.page.inner_text("#notice")
        tab.ask("more")
        assert "The server does not answer" in tab.page.locator(".trouble").last.inner_text()
        tab.page.wait_for_timeout(1200)
        kept = tab.page.locator(".said").all_inner_texts()
        tab.context.close()
    assert kept == ["go", "more"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, server: Served, scheme: str) -> None:
    tab = Page(browser, server.url, color_scheme=scheme, bypass_csp=True)
    tab.ask("# hello `code`")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    red = int(re.findall(r"\d+", tab.page.evaluate(ground))[0])
    assert (red < 60) == (scheme == "dark")
    tab.show_experts()
    tab.page.evaluate(axe.AXE_SCRIPT)
    assert serious(tab) == []
    tab.page.click("#show-settings")
    assert serious(tab) == []
    tab.context.close()


def serious(tab: Page) -> list[str]:
    found = tab.page.evaluate("axe.run().then((told) => told.violations)")
    return [
        f"{each['id']}: {[node['html'][:120] for node in each['nodes']]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


def test_a_narrow_screen_scrolls_down_alone(browser: Any, server: Served) -> None:
    tab = Page(browser, server.url)
    tab.page.set_viewport_size({"width": 390, "height": 800})
    tab.ask("word" * 100)
    wide = "document.documentElement.scrollWidth"
    assert tab.page.evaluate(wide) == 390
    ends = tab.page.evaluate("document.querySelector('.brand').getBoundingClientRect().right")
    brand = tab.page.locator(".brand").evaluate("(each) => each.scrollWidth <= each.clientWidth")
    assert brand
    assert ends <= tab.page.locator("#show-experts").bounding_box()["x"]
    for button in ("#show-experts", "#show-chats", "#show-settings"):
        tab.page.click(button)
        tab.page.wait_for_timeout(100)
        assert tab.page.evaluate(wide) == 390, button
        parts = "[...document.querySelectorAll('.experts, .chats, dialog')]"
        across = f"{parts}.every((each) => each.scrollWidth <= each.clientWidth)"
        assert tab.page.evaluate(across), button
    tab.context.close()
