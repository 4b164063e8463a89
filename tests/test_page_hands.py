"""The page under a person's hands: the keyboard alone, a browser that keeps nothing, two tabs."""

import json
from pathlib import Path
from typing import Any

import pytest
from serving import Served
from test_page_browser import CHROMIUM, TOLD, Page, browser, server, tab

__all__ = ["browser", "server", "tab"]  # fixtures

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]
AT = """() => {
  const at = document.activeElement;
  const label = document.querySelector(`label[for="${at.id}"]`)?.textContent;
  const look = [at, at.closest("form.composer") ?? at].map((each) => getComputedStyle(each));
  const seen = look[0].outlineStyle !== "none" || look[1].borderColor !== "";
  return [at.getAttribute("aria-label") ?? label ?? at.innerText, at.tagName, seen];
}"""
CHIP = "#show-experts"


def name(page: Any) -> str:
    """What has the focus."""
    return page.evaluate(AT)[0]


def walked(page: Any, key: str) -> list[str]:
    """All that is reached from the top of the page with this key, until it comes round."""
    found = []
    for _ in range(60):
        page.keyboard.press(key)
        told, tag, seen = page.evaluate(AT)
        if tag == "BODY":
            return found
        assert told.strip(), tag
        assert seen, told
        found.append(told.strip())
    raise AssertionError(found)


def test_the_keyboard_reaches_all_and_comes_round(tab: Page) -> None:
    page = tab.page
    tab.ask("one")
    page.wait_for_selector("text=Its experts")
    tab.show_experts()
    page.evaluate("document.activeElement.blur()")
    walked(page, "Tab")
    there = walked(page, "Tab")
    for wanted in ("Skip to the message", "Conversations", "Settings", "Conversation", "Edit"):
        assert wanted in there
    for wanted in ("Its experts", "Message", "Send", "Close the experts", "Show", "As a table"):
        assert wanted in there
    assert any(each.startswith("Map of the experts") for each in there)
    assert there[-1] == "Foresee other budgets"
    assert walked(page, "Shift+Tab") == there[::-1]


def test_the_panel_takes_the_focus_and_escape_gives_it_back(tab: Page) -> None:
    page = tab.page
    page.wait_for_selector("#chip-text:has-text('in memory')")
    page.focus(CHIP)
    page.keyboard.press("Enter")
    assert name(page) == "Experts"
    page.keyboard.press("Tab")
    assert name(page) == "Use the whole width"
    page.wait_for_selector(".legend li")
    page.focus("canvas")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    assert page.is_visible("#experts"), "the first Escape leaves the chosen expert"
    page.keyboard.press("Escape")
    assert page.is_hidden("#experts")
    assert "in memory" in name(page)


def test_escape_closes_the_list_and_not_the_answer(tab: Page) -> None:
    page = tab.page
    tab.set_limit(30_000)
    page.set_viewport_size({"width": 390, "height": 800})
    tab.ask("go", wait=False)
    tab.has_written(50)
    page.click("#show-chats")
    page.keyboard.press("Escape")
    assert page.is_hidden("#chats")
    assert name(page) == "Conversations"
    assert page.is_visible("#stop")
    page.keyboard.press("Escape")
    tab.done()
    page.click("#show-chats")
    page.click("#log", position={"x": 380, "y": 200})
    assert page.is_hidden("#chats")


def test_the_focus_stays_where_it_is_when_an_answer_ends(tab: Page) -> None:
    page = tab.page
    tab.ask("one")
    tab.set_limit(30_000)
    tab.ask("two", wait=False)
    tab.until("[...document.querySelectorAll('.words')].at(-1).textContent.length > 30")
    page.locator(".user [aria-label=Edit]").first.focus()
    page.evaluate("document.querySelector('#stop').click()")
    tab.done()
    assert name(page) == "Edit"
    page.locator("[aria-label='Answer again']").last.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#stop")
    assert name(page) == "Conversation"
    page.focus("#stop")
    page.keyboard.press("Enter")
    tab.done()
    assert name(page) == "Send"


def test_an_edit_is_left_and_is_not_sent_empty(tab: Page) -> None:
    page = tab.page
    tab.ask("one")
    edit = "[aria-label='Edit the message']"
    page.click("[aria-label=Edit]")
    page.keyboard.press("Escape")
    assert name(page) == "Edit"
    page.keyboard.press("Enter")
    page.fill(edit, "  ")
    page.press(edit, "Enter")
    assert page.is_visible(edit)
    page.keyboard.press("Escape")
    assert page.locator(".said").all_inner_texts() == ["one"]


def test_renaming_keeps_the_place_in_the_list(tab: Page) -> None:
    page = tab.page
    tab.ask("one")
    page.focus("[aria-label='Rename one']")
    page.keyboard.press("Enter")
    page.fill("#ask-input", "first")
    page.keyboard.press("Enter")
    page.wait_for_selector("[aria-label='Rename first']", state="attached")
    assert name(page) == "Rename first"


def test_a_wrong_name_of_a_profile_stays_to_be_mended(
    tab: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOESTREAM_DATA", str(tmp_path))
    page = tab.page
    tab.ask_to_save()
    for wrong in ("../up", "two words", ".hidden", ""):
        page.fill("#ask-input", wrong)
        page.press("#ask-input", "Enter")
        assert page.input_value("#ask-input") == wrong
        assert page.is_visible("#ask")
    page.fill("#ask-input", "größe-2.b")
    page.press("#ask-input", "Enter")
    page.wait_for_selector("text=Saved.")
    assert (tmp_path / "profiles" / "größe-2.b.json").exists()


def test_the_map_says_what_it_shows(tab: Page) -> None:
    tab.show_experts()
    tab.page.wait_for_selector("text=Found ready")
    told = tab.page.inner_text("#experts")
    assert "Each square is an expert, each row a layer." in told
    for label in ("Found ready", "Read ahead", "Read from disk", "Waited for disk"):
        assert label in told
    assert "Since the server was started" in told
    tab.ask("go")
    tab.page.wait_for_selector("text=Since the last question:")


FULL = "Storage.prototype.setItem = () => { throw new DOMException('', 'QuotaExceededError'); };"


def test_a_browser_that_is_full_can_still_chat(browser: Any, server: Served) -> None:
    tab = Page(browser, server.url)
    tab.context.add_init_script(FULL)
    tab.page.reload()
    tab.page.click("#new-chat")
    tab.set_limit(12)
    tab.page.type("#text", "one")
    tab.page.press("#text", "Enter")
    tab.done()
    assert tab.answers() == [TOLD[:12]]
    assert tab.wrong == []
    tab.context.close()


@pytest.mark.parametrize("kept", ["{garbage", "null", '"text"', "[1]"])
def test_broken_settings_are_no_settings(browser: Any, server: Served, kept: str) -> None:
    tab = Page(browser, server.url)
    script = f"localStorage.setItem('moestream.settings', {json.dumps(kept)})"
    tab.context.add_init_script(script)
    tab.page.reload()
    tab.page.wait_for_selector("#chip-text:has-text('in memory')")
    tab.set_limit(5)
    tab.ask("one")
    assert tab.answers() == [TOLD[:5]]
    assert tab.wrong == []
    tab.context.close()


def test_two_tabs_of_one_conversation_lose_nothing(tab: Page) -> None:
    tab.ask("one")
    other = tab.context.new_page()
    other.goto(tab.url)
    other.wait_for_selector(".assistant .words")
    tab.ask("two")
    tab.page.wait_for_timeout(1200)
    other.fill("#text", "three")
    other.press("#text", "Enter")
    other.wait_for_selector(".said:has-text('three')")
    other.wait_for_selector("#stop", state="hidden")
    other.wait_for_timeout(1200)
    tab.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    tab.page.wait_for_selector(".branches:has-text('/ 2')")
    tab.page.reload()
    tab.page.wait_for_selector(".user .branches")
    seen = set(tab.page.locator(".said").all_inner_texts())
    turn = tab.page.locator(".user .branches button:enabled")
    turn.click()
    seen |= set(tab.page.locator(".said").all_inner_texts())
    assert seen == {"one", "two", "three"}


def test_a_new_name_reaches_another_tab_and_is_not_undone_there(tab: Page) -> None:
    page = tab.page
    tab.ask("one")
    other = tab.context.new_page()
    other.goto(tab.url)
    other.wait_for_selector(".assistant .words")
    page.click("[aria-label='Rename one']")
    page.fill("#ask-input", "first")
    page.press("#ask-input", "Enter")
    page.wait_for_selector("[aria-label='Rename first']", state="attached")
    other.fill("#text", "two")
    other.press("#text", "Enter")
    other.wait_for_selector("#stop", state="hidden")
    other.wait_for_timeout(1200)
    page.reload()
    page.wait_for_selector(".said:has-text('two')")
    assert page.locator("[aria-label='Rename first']").count() == 1


def test_a_conversation_that_is_deleted_while_it_is_answered_stays_away(tab: Page) -> None:
    page = tab.page
    tab.ask("one", wait=False)
    page.wait_for_selector("[aria-label='Delete one']", state="attached")
    page.focus("[aria-label='Delete one']")
    page.keyboard.press("Enter")
    page.click("dialog[open] button:has-text('Delete')")
    page.wait_for_timeout(1200)
    page.reload()
    page.wait_for_selector("#text")
    page.wait_for_timeout(300)
    assert page.locator("[aria-label='Delete one']").count() == 0
