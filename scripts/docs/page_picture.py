"""Take pictures of the server's page, in a real browser, of the demo model at work.

Needs playwright, Chromium and the demo model; the speeds in them are this machine's.

    python scripts/docs/page_picture.py docs
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.capped import MOESTREAM
from bench.serve import free_port, server

FLAGS = [
    "--budget",
    "600M",
    "--temp",
    "0",
    "-q",
    "--prompt-cache",
    "off",
    "-c",
    "4096",
    "-n",
    "300",
]
QUESTIONS = (
    "What is the capital of Italy?",
    "Write a Python function that reverses a string, and say how it works.",
)
ITALIAN = "Racconta una breve storia di un pescatore."
LONG_MS = 120_000
SHOWN = 260
"""Letters of the answer when the picture is taken."""


def ask(page: Page, text: str, *, wait: bool = True) -> None:
    """Ask, and wait for the answer's end."""
    page.fill("#text", text)
    page.press("#text", "Enter")
    if wait:
        page.wait_for_selector("#stop", state="hidden", timeout=LONG_MS)
        page.wait_for_timeout(600)


def live(page: Page, folder: Path) -> None:
    """A conversation, and the experts while an answer is written."""
    page.click("#show-experts")
    for question in QUESTIONS[:1]:
        ask(page, question)
    ask(page, QUESTIONS[1], wait=False)
    while not page.evaluate(
        f"document.querySelectorAll('.words')[1]?.textContent.length > {SHOWN}"
    ):
        page.wait_for_timeout(50)  # asked from here: the page's policy lets no text be run in it
    page.screenshot(path=folder / "page.png")
    page.wait_for_selector("#stop", state="hidden", timeout=LONG_MS)
    page.wait_for_timeout(600)


def compared(page: Page, folder: Path) -> None:
    """Two answers side by side, and the forecast."""
    ask(page, ITALIAN)
    page.locator("text=Its experts").nth(2).click()
    other = page.locator(f"#show-b option:has-text('{QUESTIONS[1][:30]}')")
    page.select_option("#show-b", other.get_attribute("value"))
    page.click("text=Foresee other budgets")
    page.wait_for_selector("#budget", timeout=LONG_MS)
    page.focus("canvas")
    for _ in range(5):
        page.keyboard.press("ArrowDown")
    page.wait_for_timeout(600)
    page.screenshot(path=folder / "page-compare.png")


def narrow(page: Page, folder: Path) -> None:
    """A phone's width."""
    page.set_viewport_size({"width": 390, "height": 780})
    page.click("#show-experts")
    page.wait_for_timeout(300)
    page.screenshot(path=folder / "page-narrow.png")


def take(browser: Any, url: str, folder: Path) -> None:
    """All of them: light, dark, narrow."""
    size = {"width": 1280, "height": 800}
    context = browser.new_context(viewport=size, color_scheme="light", device_scale_factor=1)
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("#chip-text:has-text('in memory')")
    live(page, folder)
    page.emulate_media(color_scheme="dark")
    compared(page, folder)
    narrow(page, folder)
    context.close()


def main() -> None:
    """Serve the demo model, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    port = free_port()
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)))
    command = [*MOESTREAM, "serve", "demo", "--port", str(port), *FLAGS]
    with server(command, port), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        take(browser, f"http://127.0.0.1:{port}", folder)
        browser.close()


if __name__ == "__main__":
    main()
