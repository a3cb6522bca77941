"""The page in a browser: conversations, what is stopped and tried again, dark and light, and nothing that moves."""

import pytest
import torch
from browsing import expect
from web import SENTENCE, E, by_heart, make, served, studio_of, wait_for

pytestmark = pytest.mark.slow
SHOWN = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def url():
    with served(studio_of(by_heart())) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def endless():
    """A model that has something to say for seconds."""
    gpt = make(context=3000)
    with torch.no_grad():
        gpt.final_norm.bias.fill_(1)
        gpt.token_embedding.weight[E] = -2  # its logit is about -2 times the 32 ones: the end never comes
    studio = studio_of(gpt)
    with served(studio) as port:
        yield f"http://127.0.0.1:{port}/", studio


def say(page, text):
    page.fill("#say", text)
    page.keyboard.press("Enter")
    page.wait_for_selector("#talk[aria-busy=false]")


def test_a_conversation(opened, endless):
    url, _ = endless
    page = opened(url)
    page.fill("#temperature", "0")
    page.fill("#max-tokens", "20")
    page.click("#tab-talk")
    page.fill("#system", "You are brief.")
    say(page, "患者 <b>")
    said = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": "患者 <b>"}]
    answers = []
    for _ in range(2):
        body = {"messages": said, "temperature": 0, "max_tokens": 20}
        answers.append(page.request.post(f"{url}v1/chat/completions", data=body).json()["choices"][0]["message"])
        expect(page.locator("#talk .messages p")).to_have_count(len(said))
        assert page.locator("#talk .messages p").last.text_content() == answers[-1]["content"] != ""
        said += [answers[-1], {"role": "user", "content": "发热"}]
        say(page, "发热")
    assert page.locator("#talk .messages p").first.text_content() == "患者 <b>"  # text, not HTML
    page.fill("#say", "  ")
    page.click("#talk button.main")  # nothing is no message
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    assert page.input_value("#say").strip() == "one\ntwo" and page.locator("#talk .messages p").count() == 6
    page.click("#clear")
    expect(page.locator("#talk .messages li")).to_have_count(0)
    assert page.locator("#talk .empty").is_visible()


def test_a_model_that_says_nothing_is_told_and_asked_on(opened, url):
    page = opened(url)
    page.fill("#temperature", "0")
    page.click("#tab-talk")
    for count in (2, 4):
        say(page, "患者")
        expect(page.locator("#talk .messages p")).to_have_count(count)
        assert "without a word" in page.locator("#talk .messages p").last.text_content()
        assert page.locator("#talk .problem").text_content() == ""


@pytest.mark.parametrize("tab", ["write", "talk"])
def test_a_text_that_is_stopped_stays_and_the_server_does_not_write_on(opened, endless, tab):
    at, studio = endless
    page = opened(at)
    page.fill("#max-tokens", "512")
    page.click(f"#tab-{tab}")
    text = page.locator({"write": "#write .tokens", "talk": "#talk .messages .assistant p"}[tab])
    page.fill({"write": "#prompt", "talk": "#say"}[tab], "abc")
    page.click(f"#{tab} button.main")
    wait_for(lambda: text.count() and len(text.text_content()) > 20, 40)
    page.click(f"#{tab} [data-stop]")
    kept = text.text_content()
    assert page.get_attribute(f"#{tab}", "aria-busy") == "false" and page.locator(f"#{tab} [data-stop]").is_disabled()
    wait_for(lambda: studio.worker.engine.idle, 2)  # 512 tokens take longer
    page.wait_for_timeout(200)
    assert text.text_content() == kept and page.locator(f"#{tab} .problem").text_content() == ""


def test_what_failed_is_tried_again(opened, url):
    page = opened(url, allowed="Failed to fetch|ERR_")
    page.fill("#temperature", "0")
    page.fill("#prompt", "患者")
    page.context.set_offline(True)
    page.click("#write button.main")
    page.wait_for_selector("#write .problem button")
    page.context.set_offline(False)
    page.click("#write .problem button")
    page.wait_for_selector("#write .finish", state="visible")
    assert page.locator("#write .tokens").text_content() == SENTENCE
    assert page.locator("#write .problem").text_content() == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_go_round_and_are_remembered(opened, url, scheme):
    page = opened(url, color_scheme=scheme)
    seen = {}
    for _ in range(3):
        seen[page.evaluate("document.documentElement.dataset.theme")] = page.evaluate(SHOWN)
        page.click("#theme")
    assert set(seen) == {"auto", "light", "dark"} and seen["light"] != seen["dark"] and seen["auto"] == seen[scheme]
    page.click("#theme")
    other = page.evaluate("document.documentElement.dataset.theme")
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == other != "auto"
    assert page.evaluate(SHOWN) == seen[other]


def test_nothing_moves_for_who_asked_for_that(opened, url):
    page = opened(url, reduced_motion="reduce")
    page.click("#tab-beams")
    page.fill("#beam-prompt", "患者")
    page.click("#beams button.main")
    page.wait_for_selector("#beams .tree svg")
    assert page.input_value("#beam-step") == page.get_attribute("#beam-step", "max") != "0"  # the end, at once
    bar = """() => { const list = document.createElement("ul"), bar = document.createElement("span");
      list.className = "bars"; bar.className = "bar"; list.append(bar); document.body.append(list);
      return getComputedStyle(bar).transitionDuration; }"""
    assert page.evaluate(bar) == "0s"
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(bar) == "0.12s"  # the bars of the dial, for everybody else


def test_a_search_is_played_paused_and_read_step_by_step(opened, url):
    page = opened(url)
    page.click("#tab-beams")
    page.fill("#beam-prompt", "患者")
    page.click("#beams button.main")
    page.wait_for_selector("#beams .tree svg")
    wait_for(lambda: int(page.input_value("#beam-step")) > 1, 40)
    page.click("#play")
    held = page.input_value("#beam-step")
    page.wait_for_timeout(1000)
    assert page.input_value("#beam-step") == held
    page.focus("#beam-step")
    page.keyboard.press("ArrowLeft")
    assert int(page.input_value("#beam-step")) == int(held) - 1
