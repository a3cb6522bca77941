"""The page in a real browser, before a real server: typed, streamed, pointed at, turned, read in two languages."""

import re

import pytest
import torch
from web import SENTENCE, by_heart, randomize, served, studio_of, wait_for

import lora

pytestmark = pytest.mark.slow
TABS = ("write", "talk", "beams", "attention", "lora")
# Colours as the browser sees them: text against the backgrounds below it, blended, as WCAG 2 computes contrast.
CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const over = (colours) => { canvas.clearRect(0, 0, 1, 1);
    for (const c of colours) { canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = (rgb) => { const [r, g, b] = rgb.slice(0, 3).map((v) => v / 255).map((v) =>
      v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const bad = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest(".unseen, svg, button:disabled")) continue;
    const grounds = [];
    for (let each = element; each; each = each.parentElement) grounds.unshift(getComputedStyle(each).backgroundColor);
    const ground = over(grounds), ink = over([...grounds, getComputedStyle(element).color]);
    const [high, low] = [light(ink), light(ground)].sort((a, b) => b - a);
    if ((high + 0.05) / (low + 0.05) < 4.5) bad.push(`${texts.currentNode.data} ${high} ${low}`);
  }
  return bad; }"""
NAMELESS = """() => [...document.querySelectorAll("button, input, select, textarea, canvas, svg, [role=button], a")]
  .filter((each) => each.checkVisibility() && !each.closest("[aria-hidden]") && !each.ariaHidden &&
  !(each.labels?.length || each.getAttribute("aria-label") ||
  each.textContent.trim())).map((each) => each.outerHTML.slice(0, 100))"""


@pytest.fixture(scope="module")
def url():
    gpt = by_heart(SENTENCE + "\n<b>x</b>")
    lora.attach(gpt, lora.Config(r=2, alpha=4, targets="all-linear"), "a1")
    for module in gpt.modules():
        if isinstance(added := getattr(module, "learned_in", None), str):
            torch.manual_seed(1)
            randomize(getattr(module, added), 0.15)
    with served(studio_of(gpt, {"runs/letters": "a1"})) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture
def page_of(opened, url):
    """A function that opens the page of the model."""
    return lambda **options: opened(url, **options)


def write(page, prompt="", temperature="0"):
    page.fill("#prompt", prompt)
    page.fill("#temperature", temperature)
    page.click("#write button.main")
    page.wait_for_selector("#write .finish", state="visible")


def written(page):
    return page.locator("#write .tokens").text_content()


def asked(page, path, body):
    answer = page.request.post(page.url.split("#")[0] + path, data=body)
    assert answer.ok, answer.text()
    return answer.json()


def test_a_chinese_text_streams_whole_and_as_text(page_of):
    page = page_of()
    page.evaluate("""() => { window.seen = []; const host = document.querySelector('#write .tokens');
      new MutationObserver(() => seen.push(host.textContent)).observe(host, {childList: true, subtree: true}); }""")
    write(page, "患者")
    assert written(page) == f"{SENTENCE}\n<b>x</b>"  # the last as text, not as HTML
    seen = page.evaluate("seen")
    assert len(set(seen)) > 5 and not any("\ufffd" in text for text in seen)
    assert all(written(page).startswith(text) for text in seen)


def test_the_mark_of_a_new_line_stands_where_the_line_ends(page_of):
    page = page_of()
    write(page, "患者")
    lines = page.locator("#write .token .line")
    assert lines.all_text_contents() == ["\n"] and written(page) == f"{SENTENCE}\n<b>x</b>"
    sign = "() => getComputedStyle(document.querySelector('#write .token .line'), '::before').content"
    assert page.evaluate(sign) == '"⏎"'
    token = "{ text: '.\\n\\nab\\n' }"
    page.evaluate(f"import('/static/tokens.js').then((module) => {{ window.made = module.tinted({token}); }})")
    wait_for(lambda: page.evaluate("!!window.made"))
    pieces = page.evaluate("[...made.childNodes].map((each) => [each.className ?? '', each.textContent])")
    assert pieces == [["", "."], ["line", "\n"], ["line", "\nab"], ["line", "\n"]]


def test_an_alternative_is_shown_and_gone_on_from(page_of):
    page = page_of()
    write(page, "患者", "0")
    tokens = page.locator("#write .tokens .token")
    place = len("咳嗽三天".encode())
    before = written(page)
    tokens.nth(place + 3).hover()
    page.wait_for_selector("#write .card li:nth-child(10)", state="visible")
    tops = page.eval_on_selector_all("#write .card button", "all => all.map((each) => each.dataset.id)")
    assert len(set(tops)) == 10
    page.locator("#write .card button").nth(1).click()
    page.wait_for_selector("#write .history li:nth-child(2)")
    page.wait_for_selector("#write .finish", state="visible")
    beginning = "患者咳嗽三天"
    assert written(page) != before and written(page).startswith(beginning) and before.startswith(beginning)
    assert tokens.nth(place + 3).get_attribute("class").split()[-1] == "chosen"
    page.click("#undo")
    assert written(page) == before


def test_everything_can_be_done_with_a_keyboard(page_of):
    page = page_of()
    page.fill("#temperature", "0")
    page.focus("#prompt")
    page.keyboard.type("患者")
    page.focus("#write button.main")
    page.keyboard.press("Enter")
    page.wait_for_selector("#write .finish", state="visible")
    page.keyboard.press("Tab")  # stop is disabled, and undo: the text is next
    for key in ("ArrowRight", "End", "Home", "ArrowRight"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement === document.querySelectorAll('#write .token')[1]")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.closest('.card') !== null")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    assert page.locator("#write .card").is_hidden()
    assert page.evaluate("document.activeElement === document.querySelectorAll('#write .token')[1]")
    page.focus("#tab-write")
    page.keyboard.press("ArrowRight")
    assert page.locator("#talk").is_visible() and page.locator("#write").is_hidden()


def test_the_tree_of_a_search_grows_and_has_lost_branches(page_of):
    page = page_of()
    page.click("#tab-beams")
    page.fill("#beam-prompt", "患者")
    page.fill("#num-beams", "3")
    page.click("#beams button.main")
    page.wait_for_selector("#beams .tree svg")
    shown = "document.querySelectorAll('.box:not(.later)').length"
    few = page.evaluate(shown)
    assert few > 0
    wait_for(lambda: page.evaluate(shown) > few, 40)  # not page.wait_for_function: the page's policy forbids eval
    page.fill("#beam-step", page.get_attribute("#beam-step", "max"))
    assert page.locator(".box.lost").count() > 0 and page.locator(".box.dropped").count() > 0
    body = {"prompt": "患者", "num_beams": 3, "max_tokens": 16, "length_penalty": 1}
    found = asked(page, "api/beams", body)
    assert page.locator(".box").count() == sum(map(len, found["steps"]))
    assert page.locator(".box.best").count() == found["best"][0]["spot"][0] + 1
    assert page.locator(".texts .best bdi").text_content() == found["best"][0]["text"]


def test_attention_is_what_the_server_says(page_of):
    page = page_of()
    page.click("#tab-attention")
    page.fill("#attention-text", "cough")
    page.click("#attention button.main")
    page.wait_for_selector("#matrix", state="visible")
    page.locator(".heads button").nth(1).click()
    page.locator("#attention .token").nth(3).focus()
    found = asked(page, "api/attention", {"text": "cough", "layer": 0})
    weights = page.eval_on_selector_all("#attention .token", "all => all.map((each) => Number(each.dataset.weight))")
    assert weights == found["weights"][1][3] and sum(weights) == pytest.approx(1, abs=0.01)
    assert weights[4:] == [0] * (len(weights) - 4)
    inked = "() => { const c = document.querySelector('.heads canvas'), "
    inked += "d = c.getContext('2d').getImageData(0, 0, 1, 1).data;"
    assert page.evaluate(inked + " return [...d.slice(0, 3)].join() }") != "0,0,0"


def test_the_dial_goes_from_the_base_to_the_adapter(page_of):
    page = page_of()
    page.click("#tab-lora")
    page.fill("#lora-prompt", "患者")
    page.click("#lora button.main")
    page.wait_for_selector("#dial .bars li")
    page.wait_for_selector("#spectrum figure")
    assert page.input_value("#scale") == "10"  # the adapter as it was trained
    shown = {}
    for place, model in (("10", "letters"), ("0", "notes")):
        page.fill("#scale", place)
        values = page.eval_on_selector_all(
            "#dial .bars li", "all => all.map((each) => Number(each.dataset.probability))"
        )
        names = page.locator("#dial .bars bdi").all_text_contents()
        wanted = {
            each["text"]: each["probability"]
            for each in asked(page, "api/next", {"prompt": "患者", "model": model, "top": 1})["tokens"]
        }
        ((text, most),) = wanted.items()
        likeliest = max(range(len(names)), key=values.__getitem__)
        assert values[likeliest] == pytest.approx(most, abs=1e-3), model
        assert sum(values) == pytest.approx(1, abs=1e-3)
        shown[model] = values
    assert shown["letters"] != shown["notes"]
    page.wait_for_selector("#compare[aria-busy=false]")
    fields = {"prompt": "患者", "max_tokens": 80, "temperature": 0.8, "seed": 0}
    for model, place in (("notes", "base"), ("letters", "adapted")):
        tokens = page.locator(f"#answer-{place} .token").all_text_contents()
        assert "".join(tokens) == asked(page, "v1/completions", fields | {"model": model})["choices"][0]["text"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_readable_on_a_phone_in_both_languages_and_themes(page_of, scheme):
    page = page_of(viewport={"width": 320, "height": 640}, color_scheme=scheme)
    write(page, "患者", "1.6")
    for _ in range(2):
        for tab in TABS:
            page.click(f"#tab-{tab}")
            assert page.evaluate("document.documentElement.scrollWidth") <= 320, tab
            assert page.evaluate(CONTRAST) == [], tab
            assert page.evaluate(NAMELESS) == [], tab
        page.click("#language")
    assert page.evaluate("document.documentElement.lang") == "en"
    page.click("#language")
    page.reload()
    assert page.locator("#tab-write").text_content() == "续写"
    assert page.evaluate("document.documentElement.lang") == "zh-CN"


def test_what_goes_wrong_is_said_beside_it(page_of):
    page = page_of(allowed="status of 400|Failed to fetch|ERR_")
    page.click("#tab-attention")
    page.fill("#attention-text", "x" * 200)
    page.click("#attention button.main")
    page.wait_for_selector("#attention .problem:not(:empty)")
    assert "200" in page.text_content("#attention .problem") or "201" in page.text_content("#attention .problem")
    page.context.set_offline(True)
    page.click("#attention button.main")
    page.wait_for_selector("#attention .problem button")
    assert "stopped" in page.text_content("#attention .problem")
    page.context.set_offline(False)
    page.fill("#attention-text", "x")
    page.click("#tab-write")
    write(page, "患者")


def test_a_token_is_asked_for(opened):
    with served(studio_of(by_heart()), token="open-sesame") as port:
        page = opened(f"http://127.0.0.1:{port}/", allowed="status of 401")
        for given in ("wrong", "open-sesame"):
            page.wait_for_selector("#token", state="visible")
            page.fill("#token-text", given)
            page.keyboard.press("Enter")
        page.wait_for_selector("#write", state="visible")
        assert page.locator("#lora .adapted").is_hidden()  # and no adapter here
        write(page, "患者")
        assert written(page) == SENTENCE


def test_the_page_of_runs_remembers_the_same_choices(opened, tmp_path):
    studio = studio_of(by_heart())
    studio.runs_dir = tmp_path
    with served(studio, token="open-sesame") as port:
        page = opened(f"http://127.0.0.1:{port}/", allowed="status of 401", locale="en", color_scheme="light")
        page.wait_for_selector("#token", state="visible")
        page.fill("#token-text", "open-sesame")
        page.keyboard.press("Enter")
        page.wait_for_selector("#write", state="visible")
        page.click("#language")
        page.goto(f"http://127.0.0.1:{port}/runs")
        page.wait_for_selector("#empty", state="visible")  # no token was asked for again
        assert page.evaluate("document.documentElement.lang") == "zh"
        page.click("#theme")
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("#write", state="visible")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert page.locator("#tab-write").text_content() == "续写"


def test_every_word_is_there_in_both_languages():
    from minigpt.web.app import PAGE

    words = (PAGE / "words.js").read_text("utf-8")
    known = set(re.findall(r'(?:^|, |\s)"?([\w-]+)"?: \["', words))
    used = set(re.findall(r'data-(?:word|label|hint)="([\w-]+)"', (PAGE / "index.html").read_text("utf-8")))
    assert used and used <= known
