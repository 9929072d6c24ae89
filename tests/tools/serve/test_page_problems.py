"""The page in a real browser: refusals, failures, keys, and what outlives a reload."""

import re

from playwright.sync_api import expect

from tests.tools.serve.live import running
from tests.tools.serve.visits import answer_with, generate, made_up, setting, stream, visiting

NO_WORDS = re.compile("^$")


def test_what_the_server_refuses_is_told(browser, server):
    with visiting(browser, server, "status of 400") as page:
        page.get_by_label("Prompt").fill("the lamp " * 200)
        page.get_by_role("button", name="Generate").click()
        problem = page.locator("#problem")
        expect(problem).to_have_text(
            re.compile(r"The server refused: prompt: \d+ tokens, and this model sees 32\.")
        )
        expect(problem).to_have_attribute("role", "alert")
        expect(page.locator("#lane-a .facts")).to_contain_text("ended: an error")
        generate(page)
        expect(problem).to_have_text(NO_WORDS)

        asked = []
        page.on("request", lambda request: asked.append(request.url))
        for name, value in (("temperature", "-1"), ("top_p", "0"), ("max_tokens", "")):
            field = setting(page, name)
            kept = field.input_value()
            field.fill(value)
            page.get_by_role("button", name="Generate").click()
            expect(field).to_be_focused()
            assert not field.evaluate("(field) => field.validity.valid")
            field.fill(kept)
        assert asked == []


def test_failures_on_the_way_are_told(browser, server):
    with visiting(browser, server, "ERR_FAILED") as page:
        problem = page.locator("#problem")
        page.route("**/v1/completions", lambda route: route.abort("failed"))
        page.get_by_role("button", name="Generate").click()
        expect(problem).to_contain_text("The server does not answer")
        failed = {"error": {"message": "the model failed; the server's log says how"}}
        answer_with(page, stream(made_up("a", "a"), failed))
        page.get_by_role("button", name="Generate").click()
        expect(problem).to_have_text("the model failed; the server's log says how.")
        expect(page.locator("#lane-a .token")).to_have_count(1)
        answer_with(page, stream(made_up("a", "a")))
        page.get_by_role("button", name="Generate").click()
        expect(problem).to_contain_text("broke off")


def test_a_key_is_asked_for_when_it_is_needed(browser, opened):
    with (
        running(opened, key="k") as address,
        visiting(browser, address, "status of 401") as page,
    ):
        key = page.get_by_label("API key")
        expect(key).to_be_focused()
        expect(page.locator("#problem")).to_contain_text("asks for its API key")
        key.fill("wrong")
        page.get_by_role("button", name="Use this key").click()
        expect(page.locator("#problem")).to_contain_text("does not take this API key")
        key.fill("k")
        page.keyboard.press("Enter")
        expect(page.locator("#model")).to_contain_text("small")
        expect(key).to_be_hidden()
        generate(page)
        expect(page.locator("#lane-a .token")).to_have_count(12)
        page.locator("#lane-a .token").nth(2).click()
        expect(page.locator("#attention .readout")).to_contain_text("looks most at")
        page.reload()
        expect(page.locator("#model")).to_contain_text("small")
        assert "k" not in page.evaluate("Object.values({...localStorage})")


def test_prompt_and_settings_outlive_a_reload(browser, server):
    with visiting(browser, server) as page:
        page.get_by_label("Prompt").fill("two\nlines")
        setting(page, "temperature").fill("0.35")
        page.get_by_label("Compare two samplings").check()
        setting(page, "stop", "b").fill("\\n\\n")
        page.get_by_role("button", name="Dark colours").click()
        page.reload()
        expect(page.get_by_label("Prompt")).to_have_value("two\nlines")
        expect(setting(page, "temperature")).to_have_value("0.35")
        expect(setting(page, "stop", "b")).to_have_value("\\n\\n")
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        page.get_by_role("button", name="Light colours").click()
        expect(page.locator("html")).to_have_attribute("data-theme", "light")
