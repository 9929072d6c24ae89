"""The page of the server, in a real browser."""

import re

import pytest
import torch
from playwright.sync_api import expect

from atlas.tools.serve.engine import ServerOptions
from tests.browser import CONTRAST
from tests.tools.serve.support import (
    DESKTOP,
    answer_with,
    chunk,
    generate,
    running,
    setting,
    stream,
    text_of,
    token_chunk,
    visiting,
)

PHONE = {"width": 390, "height": 844}
NARROW = {"width": 360, "height": 640}
ZOOMED = {"width": 640, "height": 400}  # 1280 x 800 at 200 %
EMPTY = re.compile("^$")


@pytest.fixture(scope="module")
def example(opened):
    """The address of a server with examples."""
    examples = ("the lamp", "a river runs by the old stone house of the lamp", "two\nlines")
    with running(opened, examples=examples) as address:
        yield address


@pytest.mark.parametrize("viewport", [NARROW, PHONE, DESKTOP], ids=["narrow", "phone", "desktop"])
def test_the_first_screen_has_prompt_button_and_text(browser, example, viewport):
    with visiting(browser, example, viewport=viewport) as page:
        expect(page.locator("#panel-a .state")).to_have_text("Finished: max tokens reached")
        expect(page.get_by_label("Prompt")).to_have_value("the lamp")
        assert page.evaluate("scrollY") == 0
        parts = ["#prompt", "#examples", "#generate", "#stop", "#panel-a .state"]
        for part in (*parts, "#panel-a .tokens .token >> nth=15"):
            box = page.locator(part).bounding_box()
            assert box["y"] >= 0
            assert box["y"] + box["height"] <= viewport["height"]
            assert box["x"] + box["width"] <= viewport["width"]
        buttons = [page.locator(part).bounding_box() for part in ("#generate", "#stop", "#compare")]
        assert max(each["y"] for each in buttons) < buttons[0]["y"] + buttons[0]["height"]
        output, settings = (
            page.locator(part).bounding_box() for part in ("#panel-a", "#settings-a")
        )
        assert settings["y"] > output["y"] or settings["x"] > output["x"] + output["width"]


def test_generate_answers_at_once(browser, example):
    with visiting(browser, example, "ERR_", viewport=NARROW) as page:
        state = page.locator("#panel-a .state")
        expect(state).to_contain_text("Finished:")
        page.route("**/v1/completions", lambda route: None)  # never answered
        page.get_by_role("button", name="Generate").click()
        found = page.evaluate(
            "[document.querySelector('#panel-a .state').textContent, scrollY,"
            " document.querySelector('#stop').disabled,"
            " document.querySelectorAll('#panel-a .tokens .token').length]"
        )
        assert found == ["Waiting for the first token …", 0, False, 0]
        page.get_by_role("button", name="Stop").click()
        expect(state).to_have_text("Finished: stopped by you")


def test_examples_are_continued_with_a_click(browser, example):
    with visiting(browser, example) as page:
        expect(page.locator("#panel-a .state")).to_contain_text("Finished:")
        page.get_by_role("button", name="two lines").click()
        expect(page.get_by_label("Prompt")).to_have_value("two\nlines")
        expect(page.locator("#panel-a .state")).to_contain_text("Finished:")
        expect(page.locator("#panel-a .prompt")).to_have_text("two\nlines")
        setting(page, "max_tokens").fill("7")
        page.get_by_label("Prompt").fill("my own")
        page.reload()
        expect(page.locator("#examples button")).to_have_count(3)
        expect(page.get_by_label("Prompt")).to_have_value("my own")
        expect(page.locator("#panel-a .state")).to_contain_text("Press Generate")


def test_tokens_stream_until_stopped(browser, server):
    with visiting(browser, server, "ERR_ABORTED") as page:
        tokens = page.locator("#panel-a .tokens .token")
        page.get_by_label("Prompt").fill("the lamp")
        setting(page, "max_tokens").fill("4000")
        page.get_by_role("button", name="Generate").click()
        expect(tokens.nth(3)).to_be_attached()
        before = tokens.count()
        expect(tokens.nth(before + 10)).to_be_attached()
        page.get_by_role("button", name="Stop").click()
        expect(page.locator("#panel-a .state")).to_have_text("Finished: stopped by you")
        expect(page.locator("#panel-a .stats")).to_contain_text("tokens/s")
        assert before < tokens.count() < 4000
        expect(page.locator("#problem")).to_have_text("")
        expect(page.get_by_role("button", name="Generate")).to_be_focused()

        generate(page, tokens=12)
        expect(tokens).to_have_count(12)
        expect(page.locator("#panel-a .state")).to_have_text("Finished: max tokens reached")
        for fact in ("12 tokens", "first token after", "perplexity", "seed 1"):
            expect(page.locator("#panel-a .stats")).to_contain_text(fact)
        expect(page.locator("#panel-a .prompt")).to_have_text("the lamp")


def test_the_shade_of_a_token_is_its_probability(browser, server):
    with visiting(browser, server) as page:
        setting(page, "temperature").fill("2")
        setting(page, "top_k").fill("0")
        setting(page, "top_p").fill("1")
        generate(page, tokens=60)
        found = page.locator("#panel-a .tokens .token").evaluate_all(
            """(all) => all.map((each) => {
                 const color = getComputedStyle(each).backgroundColor;
                 return [Number(each.dataset.probability), Number(color.match(/[\\d.]+/g)[0])];
               })"""
        )
        found.sort()
        assert all(0 <= probability <= 1 for probability, _ in found)
        lightness = [light for _, light in found]
        assert len(set(lightness)) > 5
        assert lightness == sorted(lightness, reverse=True)  # deeper is more probable


def test_a_click_shows_alternatives_and_attention(browser, server, opened):
    config = opened.model.config
    with visiting(browser, server) as page:
        generate(page)
        page.locator("#panel-a .tokens .token").nth(5).click()
        rows = page.locator("#alternatives tbody tr")
        expect(rows.last).to_contain_text("others")
        expect(page.locator("#alternatives [aria-current=true]")).to_have_count(1)
        shares = page.locator("#alternatives td:nth-child(2) .bar").evaluate_all(
            "(all) => all.map((each) => Number(each.style.getPropertyValue('--share')))"
        )
        assert len(shares) in (9, 10)  # with the sampled token, if it is not among the top eight
        assert sum(shares) == pytest.approx(1, abs=0.002)
        assert shares[:-1] == sorted(shares[:-1], reverse=True)

        heads = page.locator(".heat-rows [role=option]")
        expect(heads).to_have_count(1 + config.n_layer * config.n_head)
        prompt = len(opened.encode("the lamp"))
        for head in (0, 1, config.n_layer * config.n_head):
            heads.nth(head).click()
            expect(heads.nth(head)).to_have_attribute("aria-selected", "true")
            name = heads.nth(head).get_attribute("aria-label")
            expect(page.locator("#attention .readout")).to_contain_text(f"{name}. Attends most to")
            weights = page.locator(".shaded-text [data-weight]").evaluate_all(
                "(all) => all.map((each) => Number(each.dataset.weight))"
            )
            assert len(weights) == prompt + 5
            assert sum(weights) == pytest.approx(1, abs=1e-3)
        page.locator(".heat-cells").click(position={"x": 3, "y": 3})
        expect(heads.first).to_have_attribute("aria-selected", "true")
        expect(page.locator("#attention .readout")).to_contain_text("Attends to token 1, ")


def test_heads_are_labelled_with_what_they_do(browser, server):
    with visiting(browser, server) as page:
        generate(page)
        page.locator("#panel-a .tokens .token").last.click()
        heads = page.locator(".heat-rows [role=option]")
        expect(heads.nth(1)).to_have_text("1.1 previous 0.81")
        expect(heads.nth(1)).to_have_attribute(
            "aria-label", "Layer 1 head 1: previous token (0.81)"
        )
        expect(heads.nth(2)).to_have_text("1.2")
        expect(heads.last).to_have_text("2.2 induction 0.21")
        heads.last.locator(".kind").click()
        expect(page.locator("#attention .readout")).to_contain_text(
            "Layer 2 head 2: induction (0.21), a tendency. Attends most to"
        )
        page.get_by_text("What the labels of the heads mean").click()
        expect(page.get_by_text("the token just before")).to_be_visible()


def test_sampling_probabilities_stand_beside_the_models_own(browser, server):
    with visiting(browser, server) as page:
        setting(page, "temperature").fill("0")
        generate(page)
        page.locator("#panel-a .tokens .token").nth(3).click()
        expect(page.locator("#alternatives th", has_text="After sampling")).to_be_visible()
        row = page.locator("#alternatives [aria-current=true]")
        expect(row).to_contain_text("sampled")
        expect(row.locator("td").last).to_have_text("100.0%")
        assert row.locator("td").first.text_content() != "100.0%"
        expect(page.locator("#alternatives .rest td").last).to_have_text("0%")


def test_tokens_of_the_prompt_have_their_own_probabilities(browser, server, opened):
    prompt = "the old lamp"
    ids = opened.encode(prompt)
    logprobs = opened.model(torch.tensor([ids]))[0].log_softmax(-1)
    expected = [
        float(row[token].detach().exp()) for row, token in zip(logprobs, ids[1:], strict=False)
    ]
    with visiting(browser, server) as page:
        generate(page, prompt)
        tokens = page.locator("#panel-a .prompt .token")
        expect(tokens).to_have_count(len(ids))
        expect(page.locator("#panel-a .prompt")).to_have_text(prompt)
        found = tokens.evaluate_all("(all) => all.map((each) => Number(each.dataset.probability))")
        assert found == pytest.approx([0, *expected], abs=1e-3)
        tokens.last.click()
        expect(page.locator("#inspector-title")).to_contain_text(f"Prompt token {len(ids)}")
        expect(page.locator("#alternatives [aria-current=true]")).to_contain_text("in the prompt")
        expect(page.locator("#alternatives th", has_text="After sampling")).to_be_hidden()
        expect(page.locator(".shaded-text [data-weight]")).to_have_count(len(ids) - 1)
        tokens.first.press("Enter")
        expect(page.locator("#inspector-title")).to_contain_text("no probability")
        expect(page.locator("#alternatives")).to_be_hidden()
        expect(page.locator("#attention")).to_be_hidden()
        generate(page, prompt, tokens=0)
        expect(tokens).to_have_count(len(ids))
        expect(page.locator("#panel-a .no-text")).to_be_hidden()


def test_any_text_is_shown_as_it_is(browser, server):
    texts = [
        "</span><script>document.title='hit'</script>",
        "x" * 3000,
        " שלום",
        "👩‍👩‍👧",
        "\u202e",
    ]
    prompt = "👩‍👩‍👧 <b> سلام\n"
    first = {"prompt_token_ids": [1, 2, 3]}
    scores = {
        "tokens": ["👩‍👩‍👧 ", "<b>", " سلام\n", texts[0]],
        "token_logprobs": [None, -1, -2, -3],
        "top_logprobs": [None, {"__proto__": -1}, {"<img src=x>": -2}, {"a": -3}],
        "text_offset": [0, 6, 9, 15],
    }
    with visiting(browser, server, viewport=NARROW) as page:
        name = "<img src=x onerror=alert(1)>" * 4
        about = page.request.get(f"{server}/atlas/model").json()
        heads = [{"layer": 1, "head": 1, "kind": "<i>", "score": 1, "is_role": True}]
        about |= {"name": name, "examples": [prompt, *texts[:2]], "heads": heads}
        page.route("**/atlas/model", lambda route: route.fulfill(json=about))
        whole = {"text": prompt + texts[0], "logprobs": scores, "finish_reason": None}
        chunks = [token_chunk(text, text) for text in texts[1:]]
        answer_with(
            page, stream(chunk(**whole, token_ids=[4], **first), *chunks) + "data: [DONE]\n\n"
        )
        page.reload()
        expect(page.locator("#model")).to_contain_text(name)
        expect(page.locator("#panel-a .tokens .token")).to_have_count(len(texts))
        assert text_of(page) == "".join(texts)
        prompts = page.locator("#panel-a .prompt .token")
        assert prompts.evaluate_all("(all) => all.map((each) => each.dataset.text)") == [
            "👩‍👩‍👧 ",
            "<b>",
            " سلام\n",
        ]
        expect(page.locator("#panel-a script, #panel-a b, #model img, button img")).to_have_count(0)
        prompts.nth(1).click()
        expect(page.locator("#alternatives")).to_contain_text("__proto__")
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(wide) <= 0
        assert "hit" not in page.title()


@pytest.mark.slow
def test_4000_tokens(browser, server):
    with visiting(browser, server) as page:
        chunks = [token_chunk("lamp ", "lamp ") for _ in range(4000)]
        answer_with(page, stream(*chunks) + "data: [DONE]\n\n")
        page.get_by_role("button", name="Generate").click()
        tokens = page.locator("#panel-a .tokens .token")
        expect(tokens).to_have_count(4000)
        many = {"tokens": ["lamp "] * 4000, "layers": [[[1 / 4000] * 4000] * 4] * 4}
        page.route("**/atlas/attention", lambda route: route.fulfill(json=many))
        tokens.last.click()
        expect(page.locator("#attention")).to_have_attribute("aria-busy", "false")
        heads = page.locator(".heat-rows")
        heads.press("ArrowDown")  # the first one also waits for the layout
        milliseconds = page.evaluate(
            """() => {
                 const heads = document.querySelector(".heat-rows");
                 const start = performance.now();
                 for (let step = 0; step < 10; step += 1) {
                   heads.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowDown"}));
                   heads.getBoundingClientRect();
                 }
                 return performance.now() - start;
               }"""
        )
        assert milliseconds < 10_000  # on a busy machine; it took 45 s once


@pytest.mark.slow
def test_keyboard_only(browser, server):
    with visiting(browser, server) as page:
        press = page.keyboard.press
        expect(page.locator("#model")).to_contain_text("small")
        focused = page.locator(":focus")
        for name in ("theme", "prompt"):
            press("Tab")
            expect(focused).to_have_id(name)
        press("Control+a")
        page.keyboard.type("the river")
        press("Control+Enter")
        expect(page.locator("#panel-a .state")).to_contain_text("Finished:")
        for name in ("generate", "compare"):
            press("Tab")
            expect(focused).to_have_id(name)
        press("Tab")
        expect(page.locator("#panel-a .prompt .token").first).to_be_focused()
        press("Tab")
        tokens = page.locator("#panel-a .tokens .token")
        for key, at in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 79)):
            press(key)
            expect(tokens.nth(at)).to_be_focused()
        press("Home")
        press("ArrowRight")
        press("Enter")
        expect(tokens.nth(1)).to_have_attribute("aria-selected", "true")
        readout = page.locator("#attention .readout")
        expect(readout).to_contain_text("Average of all heads. Attends most to")
        press("ArrowRight")
        press("Space")
        expect(page.locator("#inspector-title")).to_contain_text("Token 3")
        expect(page.locator("#attention")).to_have_attribute("aria-busy", "false")

        press("Tab")
        expect(focused).to_have_attribute("role", "listbox")
        press("ArrowDown")
        expect(readout).to_contain_text("Layer 1 head 1: previous token (0.81). Attends most to")
        press("ArrowLeft")
        expect(readout).to_contain_text(
            re.compile(r"Attends to token \d+, .* with weight [01]\.\d")
        )
        names = [
            "temperature",
            "top_k",
            "top_p",
            "min_p",
            "repetition_penalty",
            "max_tokens",
            "seed",
            "stop",
        ]
        press("Tab")
        expect(focused).to_have_text("What the labels of the heads mean")
        for name in names:
            press("Tab")
            expect(focused).to_have_id(f"a-{name}")
        press("Tab")
        expect(page.locator("#chart .plot")).to_be_focused()


def test_two_settings_side_by_side(browser, server):
    with visiting(browser, server) as page:
        expect(page.locator("#panel-b")).to_be_hidden()
        page.get_by_label("Compare two settings").check()
        setting(page, "max_tokens", "b").fill("20")
        setting(page, "seed", "b").fill("77")
        setting(page, "temperature", "b").fill("1.5")
        generate(page, tokens=10)
        expect(page.locator("#panel-a .tokens .token")).to_have_count(10)
        expect(page.locator("#panel-b .tokens .token")).to_have_count(20)
        expect(page.locator("#panel-b .stats")).to_contain_text("seed 77")
        left, right = (page.locator(f"#panel-{panel} .text").bounding_box() for panel in "ab")
        assert left["x"] + left["width"] < right["x"]
        page.locator("#panel-b .tokens .token").nth(4).click()
        expect(page.locator("#inspector-title")).to_contain_text("Token 5 of output B")
        page.locator("#panel-a .tokens .token").nth(2).click()
        expect(page.locator("#inspector-title")).to_contain_text("Token 3 of output A")
        expect(page.locator('.token[aria-selected="true"]')).to_have_count(1)
        page.set_viewport_size(PHONE)
        left, right = (page.locator(f"#panel-{panel} .text").bounding_box() for panel in "ab")
        assert left["y"] + left["height"] < right["y"]


@pytest.mark.slow
def test_a_seed_reproduces_an_output(browser, server):
    with visiting(browser, server) as page:
        texts = []
        for seed in ("5", "5", "6"):
            setting(page, "seed").fill(seed)
            generate(page, tokens=30)
            texts.append(text_of(page))
        assert texts[0] == texts[1] != texts[2]
        setting(page, "seed").fill("")
        generate(page, tokens=30)
        new = text_of(page)
        found = re.search(r"seed (\d+)", page.locator("#panel-a .stats").text_content())
        setting(page, "seed").fill(found[1])
        generate(page, tokens=30)
        assert text_of(page) == new


def test_a_stop_string_ends_the_output_and_is_not_in_it(browser, server):
    with visiting(browser, server) as page:
        generate(page, tokens=30)
        whole = page.locator("#panel-a .tokens .token", has_text=re.compile("[a-z]{2}")).nth(3)
        stop = whole.get_attribute("data-text").strip()
        setting(page, "stop").fill(stop)
        generate(page, tokens=30)
        expect(page.locator("#panel-a .state")).to_have_text("Finished: stop string")
        assert stop not in text_of(page)


def test_a_character_of_several_tokens_is_never_broken(browser, server):
    with visiting(browser, server) as page:
        chunks = [
            token_chunk("<0xC3>", ""),
            token_chunk("<0xA9>", "é"),
            token_chunk("\n", "\n"),
            token_chunk("<b>", "<b>"),
            token_chunk("<0xE2>", ""),
            chunk(text="\ufffd", logprobs=None, finish_reason="length", token_ids=[]),
        ]
        answer_with(page, stream(*chunks) + "data: [DONE]\n\n")
        page.get_by_role("button", name="Generate").click()
        tokens = page.locator("#panel-a .tokens .token")
        expect(tokens).to_have_text(["", "é", "\n", "<b>", "<0xE2>"])
        expect(tokens.locator("b")).to_have_count(0)  # text, never markup
        expect(page.locator("#panel-a .stats")).to_contain_text("perplexity 2.7")


def test_loss_curves(browser, server, opened):
    with visiting(browser, server) as page:
        chart = page.locator("#chart .plot")
        expect(chart).to_have_attribute("role", "img")
        expect(chart).to_have_attribute("aria-label", re.compile("validation from 6.00 to 3.25"))
        expect(chart.locator("polyline")).to_have_count(3)
        expect(chart.locator("text", has_text="step")).to_be_visible()
        points = chart.locator("polyline.train_average").get_attribute("points").split()
        assert len(points) == 20
        heights = [float(point.split(",")[1]) for point in points]
        assert heights == sorted(heights)  # loss falls, and y grows downwards
        chart.focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        expect(page.locator("#chart .readout")).to_contain_text("Step 10: ")
        expect(page.locator("#chart .readout")).to_contain_text("training 4.900")
        chart.hover(position={"x": chart.bounding_box()["width"] - 10, "y": 100})
        expect(page.locator("#chart .readout")).to_contain_text("Step 200: ")
    with running(opened) as address, visiting(browser, address) as page:
        expect(page.locator("#model")).to_contain_text("small")
        expect(page.locator("#curves")).to_be_hidden()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "viewport", [DESKTOP, PHONE, NARROW, ZOOMED], ids=["desktop", "phone", "narrow", "zoomed"]
)
def test_layout_fits_and_contrast_suffices(browser, server, viewport, scheme):
    with visiting(browser, server, viewport=viewport, color_scheme=scheme) as page:
        page.get_by_label("Compare two settings").check()
        generate(page, tokens=40)
        page.locator("#panel-a .tokens .token").last.click()
        expect(page.locator("#attention .readout")).to_contain_text("Attends most to")
        page.locator(".heat-rows .has-role").click()
        page.get_by_text("What the labels of the heads mean").click()
        expect(page.locator("#chart .plot")).to_be_visible()
        wide, seen = page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide <= seen
        small = (
            ".token, .stats, .hint, small, .legend span, .piece, .chosen, .state, .shaded-text span"
        )
        ratios = page.evaluate(
            CONTRAST, f"{small}, button, .heat-rows span, dt, dd, label, .readout, .rest"
        )
        assert len(ratios) > 150
        assert min(ratios) >= 4.5  # WCAG's AA


@pytest.mark.slow
def test_refusals_and_invalid_fields(browser, server):
    with visiting(browser, server, "status of 400") as page:
        page.get_by_label("Prompt").fill("the lamp " * 200)
        page.get_by_role("button", name="Generate").click()
        problem = page.locator("#problem")
        expect(problem).to_have_text(
            re.compile(r"Request refused: prompt: \d+ tokens; the context length is 32\.")
        )
        expect(problem).to_have_attribute("role", "alert")
        expect(page.locator("#panel-a .state")).to_have_text("Finished: error")
        generate(page)
        expect(problem).to_have_text(EMPTY)

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


def test_network_and_server_failures(browser, server):
    with visiting(browser, server, "ERR_FAILED") as page:
        problem = page.locator("#problem")
        page.route("**/v1/completions", lambda route: route.abort("failed"))
        page.get_by_role("button", name="Generate").click()
        expect(problem).to_contain_text("No response from the server")
        failed = {"error": {"message": "the model failed; see the server's log"}}
        answer_with(page, stream(token_chunk("a", "a"), failed))
        page.get_by_role("button", name="Generate").click()
        expect(problem).to_have_text("the model failed; see the server's log.")
        expect(page.locator("#panel-a .tokens .token")).to_have_count(1)
        answer_with(page, stream(token_chunk("a", "a")))
        page.get_by_role("button", name="Generate").click()
        expect(problem).to_contain_text("connection was lost")
        ended = chunk(text="", logprobs=None, finish_reason="stop", token_ids=[])
        answer_with(page, stream(ended) + "data: [DONE]\n\n")
        page.get_by_role("button", name="Generate").click()
        expect(page.locator("#panel-a .no-text")).to_be_visible()
        expect(problem).to_have_text(EMPTY)


def test_an_empty_prompt_and_a_full_queue(browser, opened):
    with (
        running(opened, ServerOptions(slots=1, queue_size=0)) as address,
        visiting(browser, address, "status of 429") as page,
    ):
        generate(page, prompt="")
        expect(page.locator("#panel-a .tokens .token")).to_have_count(12)
        expect(page.locator("#panel-a .prompt .token")).to_have_count(len(opened.encode("")))
        page.get_by_label("Compare two settings").check()
        setting(page, "max_tokens").fill("400")
        setting(page, "max_tokens", "b").fill("400")
        page.get_by_role("button", name="Generate").click()
        expect(page.locator("#problem")).to_contain_text("too many requests are waiting")


def test_the_server_is_down_when_the_page_opens(browser, example):
    with visiting(browser, example, "ERR_FAILED") as page:
        expect(page.locator("#panel-a .state")).to_contain_text("Finished:")
        page.route("**/atlas/model", lambda route: route.abort("failed"))
        page.reload()
        expect(page.locator("#problem")).to_contain_text("No response from the server")
        page.get_by_role("button", name="Generate").click()
        expect(page.locator("#panel-a .state")).to_have_text("Not connected")
        expect(page.get_by_role("button", name="Stop")).to_be_disabled()
        page.unroute("**/atlas/model")
        page.get_by_role("button", name="Generate").click()
        expect(page.locator("#panel-a .state")).to_have_text("Finished: max tokens reached")


def test_the_page_asks_for_a_key(browser, opened):
    with (
        running(opened, key="k") as address,
        visiting(browser, address, "status of 401") as page,
    ):
        key = page.get_by_label("API key")
        expect(key).to_be_focused()
        expect(page.locator("#problem")).to_contain_text("needs an API key")
        key.fill("wrong")
        page.get_by_role("button", name="Use key").click()
        expect(page.locator("#problem")).to_contain_text("does not accept this API key")
        key.fill("k")
        page.keyboard.press("Enter")
        expect(page.locator("#model")).to_contain_text("small")
        expect(key).to_be_hidden()
        generate(page)
        expect(page.locator("#panel-a .tokens .token")).to_have_count(12)
        page.locator("#panel-a .tokens .token").nth(2).click()
        expect(page.locator("#attention .readout")).to_contain_text("Attends most to")
        page.reload()
        expect(page.locator("#model")).to_contain_text("small")
        assert "k" not in page.evaluate("Object.values({...localStorage})")


def test_prompt_and_settings_survive_a_reload(browser, server):
    with visiting(browser, server) as page:
        page.get_by_label("Prompt").fill("two\nlines")
        setting(page, "temperature").fill("0.35")
        page.get_by_label("Compare two settings").check()
        setting(page, "stop", "b").fill("\\n\\n")
        page.get_by_role("button", name="Dark theme").click()
        page.reload()
        expect(page.get_by_label("Prompt")).to_have_value("two\nlines")
        expect(setting(page, "temperature")).to_have_value("0.35")
        expect(setting(page, "stop", "b")).to_have_value("\\n\\n")
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        page.get_by_role("button", name="Light theme").click()
        expect(page.locator("html")).to_have_attribute("data-theme", "light")


def test_fields_keep_to_the_limits_of_the_server(browser, opened):
    with (
        running(opened, ServerOptions(max_tokens=20)) as address,
        visiting(browser, address) as page,
    ):
        expect(setting(page, "max_tokens")).to_have_value("20")
        expect(setting(page, "max_tokens")).to_have_attribute("max", "20")
        expect(setting(page, "top_k")).to_have_attribute("max", str(opened.vocab_size))
