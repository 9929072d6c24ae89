"""A server in a thread of the test's own process, and visits to its page in a real browser."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Thread

import torch
from playwright.sync_api import Browser, Page, expect

from atlas.inference.backends.atlas import AtlasModel
from atlas.model.weights import initialize, make_model
from atlas.tools.serve.app import Server, create_app, listen
from atlas.tools.serve.engine import ServerOptions
from tests.small import small_config

DESKTOP = {"width": 1280, "height": 800}
expect.set_options(timeout=15_000)  # milliseconds, for a busy machine


def opened_model(tokenizer, **options) -> AtlasModel:
    """Return a small untrained model with a real vocabulary, which never ends a text."""
    shape = {"vocab_size": tokenizer.vocab_size, "eos": tokenizer.eos}
    config = small_config(**shape, tokenizer_sha256=tokenizer.sha256, **options)
    model = make_model(config).eval()
    initialize(model, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
        model.embedding.weight[tokenizer.eos] = 0  # tied: its logit is always 0
    return AtlasModel(model.config, tokenizer, "small", lambda: model)


@contextmanager
def running(opened, limits: ServerOptions | None = None, **options) -> Iterator[str]:
    """Run a server; yield its address."""
    server = Server(create_app(opened, replace(limits or ServerOptions(), **options)))
    listener = listen("127.0.0.1", 0)
    thread = Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive(), "the server did not start"
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


@contextmanager
def visiting(
    browser: Browser, address: str, *expected: str, viewport=DESKTOP, **options
) -> Iterator[Page]:
    """Open a page; fail on errors and warnings other than the expected ones."""
    context = browser.new_context(viewport=viewport, reduced_motion="reduce", **options)
    context.set_default_timeout(15_000)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("requestfailed", lambda request: problems.append(f"{request.url} {request.failure}"))

    def on_console(message) -> None:
        if message.type in ("error", "warning"):
            problems.append(f"console: {message.text}")

    def on_response(response) -> None:
        if response.status >= 400:
            problems.append(f"{response.url}: status of {response.status}")

    page.on("console", on_console)
    page.on("response", on_response)
    try:
        page.goto(address)
        yield page
        assert [each for each in problems if not any(one in each for one in expected)] == []
    finally:
        context.close()


def setting(page: Page, name: str, panel: str = "a"):
    return page.locator(f"#{panel}-{name}")


def generate(page: Page, prompt: str = "the lamp", tokens: int = 12) -> None:
    """Generate, and wait until it is finished."""
    page.get_by_label("Prompt").fill(prompt)
    setting(page, "max_tokens").fill(str(tokens))
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#panel-a .state")).to_contain_text("Finished:")
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()


def text_of(page: Page, panel: str = "a") -> str:
    texts = "(all) => all.map((each) => each.dataset.text).join('')"
    return page.locator(f"#panel-{panel} .tokens [data-text]").evaluate_all(texts)


def stream(*chunks: dict) -> str:
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)


def chunk(**choice) -> dict:
    return {"choices": [{"index": 0, **choice}]}


def token_chunk(piece: str, text: str, **choice) -> dict:
    logprobs = {"tokens": [piece], "token_logprobs": [-1.0], "top_logprobs": [{"0": -0.5}]}
    logprobs["text_offset"] = [0]
    return chunk(text=text, logprobs=logprobs, finish_reason=None, token_ids=[3], **choice)


def answer_with(page: Page, text: str) -> None:
    page.route(
        "**/v1/completions",
        lambda route: route.fulfill(body=text, content_type="text/event-stream"),
    )
