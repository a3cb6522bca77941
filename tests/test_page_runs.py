"""The page of runs in a browser: it grows with its runs, compares them, and shows text as text."""

import time

import pytest
from browsing import expect
from test_web_runs import begin, lines, train
from web import served

from minigpt.web import opening

EVIL = '<img src=x onerror="window.hurt = 1"><b>患者咳嗽三天😀</b>'
TEXTS = "el => [...el.querySelectorAll('text')].map(t => t.textContent)"


@pytest.fixture
def root(tmp_path):
    def evaluation(step, loss):
        return {"kind": "eval", "step": step, "loss": loss, "bits_per_byte": loss / 3, "perplexity": 2.7**loss}

    method = {"kind": "method", "step": 0, "method": "full", "trains": 1000}
    learning = [train(k, 1 + 8 / k, lr=k / 1000) for k in range(1, 41)]
    begin(tmp_path / "a", method, *learning[:20], evaluation(20, 1.5), steps=80, lr=0.001, task="lm", seed=0)
    final = {**evaluation(40, 1.25), "kind": "final", "peak_memory": 2**30}
    records = [method, *learning, evaluation(40, 1.25), final, {"kind": "sample", "step": 40, "text": EVIL}]
    begin(tmp_path / "b <i>", *records, steps=40, lr=0.002, task="lm", seed=0, note=EVIL)
    for run in ("a", "b <i>"):
        (tmp_path / run / "config.json").write_text('{"vocab_size": 300}')
    return tmp_path


@pytest.fixture
def visit(browser, root):
    """A function that opens the page; whatever the page complains of, or asks elsewhere, fails the test."""
    with served(opening.of_runs(root)) as port:
        contexts, wrong = [], []

        def visit(fragment="", width=1000, allowed=(), **context):
            contexts.append(browser.new_context(viewport={"width": width, "height": 800}, **{"locale": "en"} | context))
            page = contexts[-1].new_page()
            page.set_default_timeout(15_000)
            page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
            page.on("pageerror", lambda problem: wrong.append(str(problem)))
            page.on("request", lambda asked: None if f"127.0.0.1:{port}/" in asked.url else wrong.append(asked.url))
            page.goto(f"http://127.0.0.1:{port}/runs{fragment}")
            page.wait_for_selector("#list li")
            return page

        visit.wrong, visit.port = wrong, port
        yield visit
        for context in contexts:
            context.close()
        assert [text for text in wrong if "favicon" not in text and "data:," not in text] == []


def until(page, holds, seconds: float = 15.0):
    """Wait here: the page's own rules forbid the eval by which the driver waits there."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "did not come true"
        page.wait_for_timeout(50)


def points(page, kind: str) -> int:
    """Points of all curves of this kind."""
    paths = page.eval_on_selector_all(f"#chart path.{kind}", "all => all.map(path => path.getAttribute('d'))")
    return sum(path.count("M") + path.count("L") for path in paths)


def test_the_page_grows_with_its_run(visit, root):
    page = visit("#run=a")
    page.wait_for_selector("#chart path.smooth")
    assert points(page, "train") == points(page, "smooth") == 20
    assert "step 20 of 80" in page.inner_text("#list li:has-text('a')")
    assert "2 min of learning left" in page.inner_text("#list")  # 60 steps of 2 s
    assert "ln V = 5.704" in page.eval_on_selector("#chart", TEXTS)
    with (root / "a/metrics.jsonl").open("a", encoding="utf-8") as file:
        sample = {"kind": "sample", "step": 25, "text": "主诉：发热三天。"}
        file.write(lines(*(train(k) for k in range(21, 26)), sample) + '{"kind": "tr')
        file.flush()
        until(page, lambda: points(page, "train") == 25)
        assert "step 25 of 80" in page.inner_text("#list")
        assert page.inner_text("#samples pre") == "主诉：发热三天。"
    begin(root / "a", *(train(k) for k in range(1, 11)))  # resumed from step 10
    until(page, lambda: points(page, "train") == 10)
    (root / "a/metrics.jsonl").unlink()
    page.wait_for_selector("#trouble:has-text('a is no longer there.')")
    assert page.locator("#list li").count() == 1


def test_runs_are_compared(visit):
    page = visit("#run=a")
    page.wait_for_selector("#chart path.smooth")
    assert page.locator("details").get_attribute("open") is None  # all settings of one: whoever asks
    page.get_by_label("b <i>").check()
    expect(page.locator("#chart path.smooth")).to_have_count(2)
    assert page.locator("#legend li").all_inner_texts() == ["a", "b <i>"]
    dashes = page.eval_on_selector_all("#legend line", "all => all.map(l => l.getAttribute('stroke-dasharray'))")
    assert len(set(dashes)) == 2  # not colour alone
    settings = page.inner_text("#settings")
    assert "lr\t0.001\t0.002" in settings and "seed" not in settings and EVIL in settings
    results = page.inner_text("#results")
    assert "validation loss, least\t1.5 (step 20)\t1.25 (step 40)" in results
    assert "loss of what is kept\t–\t1.25" in results and "memory at its peak\t–\t1,024 MiB" in results
    assert "run=b" in page.url
    page.locator("#list li[data-run=a] input").uncheck()
    expect(page.locator("#chart path.smooth")).to_have_count(1)
    page.reload()
    expect(page.locator("#chart path.smooth")).to_have_count(1)
    assert page.locator("#legend li").all_inner_texts() == ["b <i>"]


def test_text_is_text(visit):
    page = visit("#run=b+%3Ci%3E")
    page.wait_for_selector("#samples pre")
    assert page.inner_text("#samples pre") == EVIL
    assert page.locator("img, main b, main i").count() == 0 and page.evaluate("window.hurt") is None
    assert "\ufffd" not in page.inner_text("body")


def test_axes_scales_and_the_cross(visit):
    page = visit("#run=a")
    page.wait_for_selector("#chart path.smooth")
    page.select_option("#across", "tokens")
    assert "tokens" in page.eval_on_selector("#chart", TEXTS)
    before = page.get_attribute("#chart path.train", "d")
    page.check("#log")
    assert page.get_attribute("#chart path.train", "d") != before
    page.select_option("#figure", "grad_norm")
    assert points(page, "smooth") == points(page, "eval") == 0 and points(page, "train") == 20
    page.select_option("#figure", "loss")
    page.uncheck("#log")
    page.focus("#chart")
    page.keyboard.press("End")
    said = page.inner_text("#chart .readout")
    assert said.startswith("tokens 2,0") and "a: training 1.4, smoothed" in said and "validation 1.5" in said
    page.hover("#chart", position={"x": 70, "y": 100})
    assert "a: training 9, smoothed 9, validation 1.5" in page.inner_text("#chart .readout")
    page.keyboard.press("Escape")
    assert page.inner_text("#chart .readout") == ""


def test_all_of_it_by_keyboard(visit):
    page = visit("#run=a")
    page.wait_for_selector("#chart path.smooth")
    seen = []
    for _ in range(14):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.labels?.[0]?.innerText || ''"))
        if seen[-1].startswith("b <i>"):
            page.keyboard.press("Space")
    assert {"language", "theme", "figure", "across", "log", "chart", "rate", "settings-title"} <= set(seen)
    expect(page.locator("#chart path.smooth")).to_have_count(2)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_light_and_dark_in_chinese(visit, theme):
    page = visit("#run=a&run=b+%3Ci%3E", width=320, color_scheme=theme, locale="zh-CN")
    expect(page.locator("#chart path.smooth")).to_have_count(2)
    assert page.evaluate("[document.documentElement.lang, document.title]") == ["zh", "训练"]
    assert "已完成" in page.inner_text("#list") and "第 20 步，共 80 步" in page.inner_text("#list")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert contrast(page) >= 4.5
    page.click("#theme")
    assert contrast(page) >= 4.5
    page.click("#language")
    page.reload()  # both choices are remembered
    page.wait_for_selector("#chart path.smooth")
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate("document.documentElement.dataset.theme") == ("dark" if theme == "light" else "light")
    assert "finished" in page.inner_text("#list") and page.evaluate("document.documentElement.scrollWidth") <= 320


CONTRAST = """() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const bent = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * bent(r / 255) + 0.7152 * bent(g / 255) + 0.0722 * bent(b / 255);
  const behind = (el) => {
    for (; el; el = el.parentElement) {
      const colour = parse(getComputedStyle(el).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const colourOf = (el) => {
    const style = getComputedStyle(el);
    if (el.closest("svg")) return el.tagName === "text" ? style.fill : el.matches("#legend line") ? style.stroke : null;
    return [...el.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) ? style.color : null;
  };
  const shown = [...document.querySelectorAll("body *")].filter((el) => colourOf(el) && el.getClientRects().length);
  return shown.map((el) => {
    const [a, b] = [light(parse(colourOf(el))), light(behind(el))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  });
}"""


def contrast(page) -> float:
    """The least contrast of a text, and of a curve's colour, on what is behind it (WCAG 2)."""
    found = page.evaluate(CONTRAST)
    assert len(found) > 50
    return min(found)


def test_a_server_that_stops_and_one_without_runs(browser, tmp_path):
    with served(opening.of_runs(tmp_path)) as port:
        page = browser.new_page(locale="en")
        page.goto(f"http://127.0.0.1:{port}/runs")
        page.wait_for_selector("#empty:has-text('python train.py')")
        begin(tmp_path / "first", train(1))
        page.wait_for_selector("#list li:has-text('first')")
    page.wait_for_selector("#trouble:has-text('does not answer')")
    page.close()


def test_a_token_is_asked_for(browser, root):
    with served(opening.of_runs(root), token="a-secret") as port:
        page = browser.new_page(locale="en")
        page.goto(f"http://127.0.0.1:{port}/runs")
        page.fill("#token", "a-secret")
        page.click("#ask-token button")
        page.wait_for_selector("#list li")
        assert page.is_hidden("#ask-token")
        page.close()


def test_a_long_run_stays_small_in_the_browser(visit, root):
    begin(root / "long", *(train(k, 1 + (k * 7919 % 101) / 100) for k in range(1, 3001)))
    page = visit("#run=long")
    page.wait_for_selector("#chart path.smooth")
    for last in (5000, 7000):
        with (root / "long/metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(lines(*(train(k, 50.0 if k == 4321 else 1.0) for k in range(last - 1999, last + 1))))
        page.wait_for_selector(f"#list li:has-text('long'):has-text('step {last:,}')")
        until(page, lambda last=last: page.evaluate("document.querySelector('#chart').figure.plane.right") >= last)
    assert 300 < points(page, "train") <= 2000
    assert page.evaluate("document.querySelector('#chart').figure.plane.high") > 50  # the spike
