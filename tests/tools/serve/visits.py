"""Visits to the server's page in a real browser."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, expect

DESKTOP = {"width": 1280, "height": 800}


@contextmanager
def visiting(
    browser: Browser, address: str, *expected: str, viewport=DESKTOP, **options
) -> Iterator[Page]:
    """A page that must not complain, but of what is expected."""
    context = browser.new_context(viewport=viewport, reduced_motion="reduce", **options)
    context.set_default_timeout(15_000)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("requestfailed", lambda request: complaints.append(f"{request.url} {request.failure}"))

    def console(message) -> None:
        if message.type in ("error", "warning"):
            complaints.append(f"console: {message.text}")

    def answered(response) -> None:
        if response.status >= 400:
            complaints.append(f"{response.url}: status of {response.status}")

    page.on("console", console)
    page.on("response", answered)
    try:
        page.goto(address)
        yield page
        left = [each for each in complaints if not any(one in each for one in expected)]
        assert left == []
    finally:
        context.close()


def setting(page: Page, name: str, lane: str = "a"):
    return page.locator(f"#{lane}-{name}")


def generate(page: Page, prompt: str = "the lamp", tokens: int = 12) -> None:
    """Presses the button and waits until all is written."""
    page.get_by_label("Prompt").fill(prompt)
    setting(page, "max_tokens").fill(str(tokens))
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#lane-a .facts")).to_contain_text("ended:")
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()


def text_of(page: Page, lane: str = "a") -> str:
    texts = "(all) => all.map((each) => each.dataset.text).join('')"
    return page.locator(f"#lane-{lane} .token[data-text]").evaluate_all(texts)


def stream(*chunks: dict) -> str:
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)


def chunk(**choice) -> dict:
    return {"choices": [{"index": 0, **choice}]}


def made_up(piece: str, text: str) -> dict:
    told = {"tokens": [piece], "token_logprobs": [-1.0], "top_logprobs": [{"0": -0.5}]}
    return chunk(text=text, logprobs=told, finish_reason=None, token_ids=[3])


def answer_with(page: Page, text: str) -> None:
    page.route(
        "**/v1/completions",
        lambda route: route.fulfill(body=text, content_type="text/event-stream"),
    )
