"""The page of the server, in a real browser."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser import CONTRAST
from tests.tools.serve.live import running
from tests.tools.serve.visits import (
    DESKTOP,
    answer_with,
    chunk,
    generate,
    made_up,
    setting,
    stream,
    text_of,
    visiting,
)

PHONE = {"width": 390, "height": 844}
NARROW = {"width": 360, "height": 740}


def test_tokens_come_one_by_one_until_they_are_stopped(browser, server):
    with visiting(browser, server, "ERR_ABORTED") as page:
        tokens = page.locator("#lane-a .token")
        page.get_by_label("Prompt").fill("the lamp")
        setting(page, "max_tokens").fill("4000")
        page.get_by_role("button", name="Generate").click()
        expect(tokens.nth(3)).to_be_attached()
        before = tokens.count()
        expect(tokens.nth(before + 10)).to_be_attached()
        page.get_by_role("button", name="Stop").click()
        expect(page.locator("#lane-a .facts")).to_contain_text("ended: you stopped it")
        expect(page.locator("#lane-a .facts")).to_contain_text("tokens/s")
        assert before < tokens.count() < 4000
        expect(page.locator("#problem")).to_have_text("")
        expect(page.get_by_role("button", name="Generate")).to_be_focused()

        generate(page, tokens=12)
        expect(tokens).to_have_count(12)
        for fact in ("12 tokens", "first after", "perplexity", "most tokens reached"):
            expect(page.locator("#lane-a .facts")).to_contain_text(fact)
        expect(page.locator("#lane-a .prompt")).to_have_text("the lamp")


def test_the_colour_of_a_token_is_its_probability(browser, server):
    with visiting(browser, server) as page:
        setting(page, "temperature").fill("2")
        setting(page, "top_k").fill("0")
        setting(page, "top_p").fill("1")
        generate(page, tokens=60)
        found = page.locator("#lane-a .token").evaluate_all(
            """(all) => all.map((each) => {
                 const colour = getComputedStyle(each).backgroundColor;
                 return [Number(each.dataset.probability), Number(colour.match(/[\\d.]+/g)[0])];
               })"""
        )
        found.sort()
        assert all(0 <= probability <= 1 for probability, _ in found)
        lightness = [light for _, light in found]
        assert len(set(lightness)) > 5
        assert lightness == sorted(lightness, reverse=True)  # the deeper, the more probable


def test_a_click_shows_alternatives_and_attention(browser, server, opened):
    config = opened.model.config
    with visiting(browser, server) as page:
        generate(page)
        page.locator("#lane-a .token").nth(5).click()
        rows = page.locator("#alternatives tbody tr")
        expect(rows.last).to_contain_text("others")
        expect(page.locator("#alternatives [aria-current=true]")).to_have_count(1)
        shares = page.locator("#alternatives .bar").evaluate_all(
            "(all) => all.map((each) => Number(each.style.getPropertyValue('--share')))"
        )
        assert len(shares) in (9, 10)  # the picked one may not be among the eight likeliest
        assert sum(shares) == pytest.approx(1, abs=0.002)
        assert shares[:-1] == sorted(shares[:-1], reverse=True)

        heads = page.locator(".heat-rows [role=option]")
        expect(heads).to_have_count(1 + config.n_layer * config.n_head)
        prompt = len(opened.encode("the lamp"))
        for head in (0, 1, config.n_layer * config.n_head):
            heads.nth(head).click()
            expect(heads.nth(head)).to_have_attribute("aria-selected", "true")
            name = heads.nth(head).get_attribute("aria-label")
            expect(page.locator("#attention .readout")).to_contain_text(f"{name} looks most at")
            weights = page.locator(".looked-at [data-weight]").evaluate_all(
                "(all) => all.map((each) => Number(each.dataset.weight))"
            )
            assert len(weights) == prompt + 5
            assert sum(weights) == pytest.approx(1, abs=1e-3)
        page.locator(".heat-cells").click(position={"x": 3, "y": 3})
        expect(heads.first).to_have_attribute("aria-selected", "true")
        expect(page.locator("#attention .readout")).to_contain_text("looks at token 1, ")


def test_all_of_it_by_keyboard(browser, server):
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
        expect(page.locator("#lane-a .facts")).to_contain_text("ended:")
        reached = []
        for _ in range(20):
            press("Tab")
            if focused.get_attribute("role") == "option":
                break
            reached.append(focused.get_attribute("id"))
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
        assert reached == ["generate", "compare", *(f"a-{name}" for name in names)]

        tokens = page.locator("#lane-a .token")
        for key, at in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 79)):
            press(key)
            expect(tokens.nth(at)).to_be_focused()
        press("Home")
        press("ArrowRight")
        press("Enter")
        expect(tokens.nth(1)).to_have_attribute("aria-selected", "true")
        readout = page.locator("#attention .readout")
        expect(readout).to_contain_text("The average of all heads looks most at")
        press("ArrowRight")
        press("Space")
        expect(page.locator("#details-title")).to_contain_text("Token 3")
        expect(page.locator("#attention")).to_have_attribute("aria-busy", "false")

        press("Tab")
        expect(focused).to_have_attribute("role", "listbox")
        press("ArrowDown")
        expect(readout).to_contain_text("Head 1 of layer 1 looks most at")
        press("ArrowLeft")
        expect(readout).to_contain_text(re.compile(r"looks at token \d+, .* with weight [01]\.\d"))
        press("Tab")
        expect(page.locator("#chart svg")).to_be_focused()


def test_two_samplings_side_by_side(browser, server):
    with visiting(browser, server) as page:
        expect(page.locator("#lane-b")).to_be_hidden()
        page.get_by_label("Compare two samplings").check()
        setting(page, "max_tokens", "b").fill("20")
        setting(page, "seed", "b").fill("77")
        setting(page, "temperature", "b").fill("1.5")
        generate(page, tokens=10)
        expect(page.locator("#lane-a .token")).to_have_count(10)
        expect(page.locator("#lane-b .token")).to_have_count(20)
        expect(page.locator("#lane-b .facts")).to_contain_text("seed 77")
        left, right = (page.locator(f"#lane-{lane} .text").bounding_box() for lane in "ab")
        assert left["x"] + left["width"] < right["x"]
        page.locator("#lane-b .token").nth(4).click()
        expect(page.locator("#details-title")).to_contain_text("Token 5 of text B")
        page.locator("#lane-a .token").nth(2).click()
        expect(page.locator("#details-title")).to_contain_text("Token 3 of text A")
        expect(page.locator('.token[aria-selected="true"]')).to_have_count(1)
        page.set_viewport_size(PHONE)
        left, right = (page.locator(f"#lane-{lane} .text").bounding_box() for lane in "ab")
        assert left["y"] + left["height"] < right["y"]


def test_a_seed_gives_a_text_again(browser, server):
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
        found = re.search(r"seed (\d+)", page.locator("#lane-a .facts").text_content())
        setting(page, "seed").fill(found[1])
        generate(page, tokens=30)
        assert text_of(page) == new


def test_a_stop_string_ends_a_text_and_is_no_part_of_it(browser, server):
    with visiting(browser, server) as page:
        generate(page, tokens=30)
        whole = page.locator("#lane-a .token", has_text=re.compile("[a-z]{2}")).nth(3)
        stop = whole.get_attribute("data-text").strip()
        setting(page, "stop").fill(stop)
        generate(page, tokens=30)
        expect(page.locator("#lane-a .facts")).to_contain_text("the stop string came")
        assert stop not in text_of(page)


def test_a_character_of_several_tokens_is_never_broken(browser, server):
    with visiting(browser, server) as page:
        chunks = [
            made_up("<0xC3>", ""),
            made_up("<0xA9>", "é"),
            made_up("\n", "\n"),
            made_up("<b>", "<b>"),
            made_up("<0xE2>", ""),
            chunk(text="\ufffd", logprobs=None, finish_reason="length", token_ids=[]),
        ]
        answer_with(page, stream(*chunks) + "data: [DONE]\n\n")
        page.get_by_role("button", name="Generate").click()
        tokens = page.locator("#lane-a .token")
        expect(tokens).to_have_text(["", "é", "\n", "<b>", "<0xE2>"])
        expect(tokens.locator("b")).to_have_count(0)  # text, never markup
        expect(page.locator("#lane-a .facts")).to_contain_text("perplexity 2.7")


def test_loss_curves(browser, server, opened):
    with visiting(browser, server) as page:
        chart = page.locator("#chart svg")
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
        expect(page.locator("#chart .readout")).to_contain_text("training, each step 4.900")
        chart.hover(position={"x": chart.bounding_box()["width"] - 10, "y": 100})
        expect(page.locator("#chart .readout")).to_contain_text("Step 200: ")
    with running(opened) as address, visiting(browser, address) as page:
        expect(page.locator("#model")).to_contain_text("small")
        expect(page.locator("#curves")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE, NARROW], ids=["desktop", "phone", "narrow"])
def test_fits_and_can_be_read(browser, server, viewport, scheme):
    with visiting(browser, server, viewport=viewport, color_scheme=scheme) as page:
        page.get_by_label("Compare two samplings").check()
        generate(page, tokens=40)
        page.locator("#lane-a .token").last.click()
        expect(page.locator("#attention .readout")).to_contain_text("looks most at")
        expect(page.locator("#chart svg")).to_be_visible()
        wide, seen = page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide <= seen
        read = (
            ".token, .facts, .hint, small, .legend span, .piece, .picked, .looked-at span, button"
        )
        ratios = page.evaluate(CONTRAST, f"{read}, .heat-rows span, dt, dd, label, .readout, .rest")
        assert len(ratios) > 150
        assert min(ratios) >= 4.5  # WCAG's AA
