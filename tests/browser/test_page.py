"""The page in a real Chromium over real models: conversations, the link cut and restored, keys, looks, hostile text."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from edge_runtime.api import ApiKey, ApiSettings
from edge_runtime.runtime import Runtime
from tests.browser.conftest import HANG_MS, NARROW, Device, amid_answer, steps
from tests.edge_runtime.api.tiny import SETTINGS, endpoint

pytestmark = pytest.mark.browser

expect = pytest.importorskip("playwright.sync_api", reason="run: make browser").expect
expect.set_options(timeout=HANG_MS)
KEY = "a-key-of-sixteen-letters"
PROMPT = "hi there"  # the target says much to it
NUM_TOKENS = 100
DARK, LIGHT = {"color_scheme": "dark"}, {"color_scheme": "light"}
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>&lt;b&gt;'
# Every class and element that the answer or the strip ever had, kept by the page itself.
WATCH = """() => {
  window.seen = {del: [], ahead: 0, provisional: 0};
  new MutationObserver(() => {
    for (const each of document.querySelectorAll("#log article del"))
      if (!seen.del.includes(each.textContent)) seen.del.push(each.textContent);
    seen.ahead = Math.max(seen.ahead, document.querySelectorAll("#strip .ahead").length);
    seen.provisional = Math.max(seen.provisional, document.querySelectorAll("#log article .provisional").length);
  }).observe(document.body, {subtree: true, childList: true, attributes: true});
}"""
BACKED = """(selectors) => {
  const level = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((value) => value / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const paper = level(getComputedStyle(document.body).backgroundColor);
  return selectors.map((selector) => {
    const ink = level(getComputedStyle(document.querySelector(selector)).color);
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  });
}"""

agrees = pytest.mark.parametrize("device", ["tiny"], indirect=True)
differs = pytest.mark.parametrize("device", ["other"], indirect=True)


def opened(page: Any, device: Device, num_tokens: int = NUM_TOKENS) -> None:
    page.goto(device.url)
    expect(page.locator("#mode option")).not_to_have_count(0)
    expect(page.locator("#link")).to_have_attribute("aria-checked", "true")
    page.locator("summary").click()
    page.locator("#temperature").fill("0")
    page.locator("#max_tokens").fill(str(num_tokens))
    page.locator("summary").click()
    page.evaluate(WATCH)


def ask(page: Any, text: str = PROMPT) -> None:
    page.locator("#text").fill(text)
    page.locator("#text").press("Enter")


def answered(page: Any) -> str:
    """The last answer's text, once it is over."""
    expect(page.locator("#send")).to_be_visible()
    text: str = page.locator("article.assistant").last.locator("> span").first.text_content()
    return text


def said(device: Device, messages: Sequence[dict[str, str]], num_tokens: int = NUM_TOKENS) -> str:
    """What the target says to this."""
    body = {"model": "cloud", "messages": messages, "temperature": 0, "max_tokens": num_tokens}
    answer = httpx.post(f"{device.url}/v1/chat/completions", json=body, timeout=60).json()
    text: str = answer["choices"][0]["message"]["content"]
    return text


@pytest.fixture
def pair(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    monkeypatch.setenv("OUTRIDER_HOME", str(home))
    with Runtime.local("tiny", "tiny", SETTINGS) as runtime:
        yield runtime


@agrees
def test_a_whole_conversation(page: Any, device: Device) -> None:
    opened(page, device)
    page.locator("#text").fill(PROMPT)
    page.locator("#send").click()
    first = answered(page)
    messages = [{"role": "user", "content": PROMPT}]
    assert first == said(device, messages)
    assert page.evaluate("seen.ahead") > 0  # the drafter ran ahead, and it was seen
    expect(page.locator("article .drafted")).not_to_have_count(0)
    expect(page.locator("article .provisional, article del")).to_have_count(0)
    expect(page.locator("#status")).to_contain_text("Verified answer: ")
    expect(page.locator("#tokens")).to_have_text(str(NUM_TOKENS))
    expect(page.locator("#acceptance")).to_contain_text("% of")
    expect(page.locator("#rtt")).to_contain_text("ms")
    expect(page.locator("#bytes")).to_contain_text(" up, ")
    assert float(page.locator("#per_pass").text_content()) > 1
    assert page.locator("#energy").text_content().split()[-1] in ("unknown", "J")
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "hello"}]
    page.locator("#text").fill("hello")
    page.locator("#send").click()
    expect(page.locator("article")).to_have_count(4)
    assert answered(page) == said(device, messages)
    page.locator("#new").click()
    expect(page.locator("article")).to_have_count(0)
    expect(page.locator("#hint")).to_be_visible()
    assert set(page.locator("dd").all_text_contents()) == {"\u2013"}
    expect(page.locator("#strip .drafted, #strip .own")).to_have_count(0)


@differs
def test_what_the_target_had_to_say_itself_is_told_apart(page: Any, device: Device) -> None:
    opened(page, device)
    page.locator("#text").fill(PROMPT)
    page.locator("#send").click()
    assert answered(page) == said(device, [{"role": "user", "content": PROMPT}])
    expect(page.locator("article .own")).not_to_have_count(0)
    assert page.locator("article .own").first.get_attribute("title").startswith("the target")


def asked_offline(page: Any, device: Device, num_tokens: int = NUM_TOKENS) -> None:
    """The link is cut, and the drafter answers alone."""
    opened(page, device, num_tokens)
    page.locator("#link").click()
    expect(page.locator("#link")).to_have_attribute("aria-checked", "false")
    page.locator("#text").fill(PROMPT)
    page.locator("#send").click()
    expect(page.locator("article .provisional").nth(5)).to_be_attached()
    expect(page.locator("article .note")).to_contain_text("alone")
    expect(page.locator("article .drafted, article .own")).to_have_count(0)


@agrees
def test_offline_and_confirmed(page: Any, device: Device) -> None:
    asked_offline(page, device)
    page.locator("#link").click()
    expect(page.locator("article .drafted")).not_to_have_count(0)
    assert answered(page) == said(device, [{"role": "user", "content": PROMPT}])
    expect(page.locator("article .provisional, article .note")).to_have_count(0)
    assert page.evaluate("seen.del") == []


@differs
def test_offline_and_taken_back(page: Any, device: Device) -> None:
    asked_offline(page, device)
    page.locator("#link").click()
    expect(page.locator("#send")).to_be_visible()
    expect(page.locator("#log article del")).to_have_count(0)  # struck, and gone
    assert answered(page) == said(device, [{"role": "user", "content": PROMPT}])
    [struck] = page.evaluate("seen.del")
    assert len(struck) > 5
    expect(page.locator("article .provisional, article .note")).to_have_count(0)


@agrees
def test_the_link_breaks_amid_an_answer(page: Any, device: Device) -> None:
    opened(page, device)
    with amid_answer(page, lambda: ask(page)):
        page.keyboard.press("Alt+L")
        expect(page.locator("article .provisional")).not_to_have_count(0)
    assert page.locator("article .drafted, article .own").count() > 0  # what was verified stays
    page.keyboard.press("Alt+L")
    assert answered(page) == said(device, [{"role": "user", "content": PROMPT}])
    expect(page.locator("article .provisional")).to_have_count(0)


@agrees
def test_an_answer_that_ends_offline_stays_provisional(page: Any, device: Device) -> None:
    asked_offline(page, device, 16)
    answered(page)
    expect(page.locator("#status")).to_contain_text("Provisional answer: ")
    expect(page.locator("article .drafted, article .own")).to_have_count(0)
    expect(page.locator("article .note")).to_be_visible()


@agrees
def test_the_keyboard_does_it_all(page: Any, device: Device) -> None:
    opened(page, device)
    page.locator("#text").focus()
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    with steps.held():
        page.keyboard.press("Enter")
        expect(page.locator("article.user")).to_have_text("one\ntwo")
        expect(page.locator("#stop")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#status")).to_have_text("Stopped")
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.press("Alt+L")
    expect(page.locator("#status")).to_have_text("The link is cut")
    page.keyboard.press("Alt+L")
    expect(page.locator("#status")).to_have_text("The link is restored")
    page.keyboard.press("Alt+N")
    expect(page.locator("article")).to_have_count(0)
    expect(page.locator("#status")).to_have_text("New conversation")


@agrees
def test_enter_amid_an_answer_sends_nothing_and_says_why(page: Any, device: Device) -> None:
    opened(page, device)
    with amid_answer(page, lambda: ask(page)):
        page.locator("#text").fill("and more")
        page.locator("#text").press("Enter")
        expect(page.locator("#wait")).to_be_visible()
        expect(page.locator("#status")).to_contain_text("still under way")
        expect(page.locator("#text")).to_have_value("and more")
        page.keyboard.press("Alt+N")  # what comes of the answer after that draws nothing
        expect(page.locator("#wait")).to_be_hidden()
        expect(page.locator("#status")).to_have_text("New conversation")
        assert set(page.locator("dd").all_text_contents()) == {"\u2013"}
        expect(page.locator("#strip .drafted, #strip .own, #strip .ahead")).to_have_count(0)
        page.locator("#text").press("Enter")
        expect(page.locator("article.user")).to_have_text("and more")


@agrees
@pytest.mark.parametrize(
    "page", [LIGHT, DARK, {**LIGHT, "viewport": NARROW}, {**DARK, "viewport": NARROW}], indirect=True
)
def test_it_can_be_read_in_light_dark_and_narrow(page: Any, device: Device) -> None:
    opened(page, device)
    colours = page.evaluate(BACKED, ["body", "#hint .drafted", "#hint .own", "#hint .provisional", "#hint del", "dt"])
    assert min(colours) >= 4.5  # WCAG AA
    page.locator("#text").fill("a" * 300)
    page.locator("#send").click()
    answered(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.querySelector('#send').getBoundingClientRect().bottom <= innerHeight")


@agrees
@pytest.mark.parametrize("page", [{"reduced_motion": "reduce"}], indirect=True)
def test_nothing_moves_for_who_wants_it_still(page: Any, device: Device) -> None:
    opened(page, device)
    name = "() => getComputedStyle(document.body.appendChild(document.createElement('del'))).animationName"
    assert page.evaluate(name) == "none"
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(name) == "fade"


def test_a_server_with_a_key_is_asked_with_it(page: Any, pair: Runtime) -> None:
    """Beside that: a target that is here has no link to cut."""
    with endpoint(pair, settings=ApiSettings(tokens=ApiKey(KEY))) as url:
        page.goto(url.removesuffix("/v1"))
        expect(page.locator("#key")).to_be_visible()
        page.errors.clear()  # of the 401
        page.locator("#key").fill(KEY)
        page.locator("#text").fill(PROMPT)  # the key is left for the text
        expect(page.locator("#mode option")).to_have_count(2)
        expect(page.locator("#key")).to_be_hidden()
        page.locator("#send").click()
        assert answered(page)
        expect(page.locator("#link")).to_be_hidden()


def stream(*chunks: tuple[str, dict[str, Any]]) -> str:
    told = [{"choices": [{"delta": {"content": text}}], "x_outrider": note} for text, note in chunks]
    return "".join(f"data: {json.dumps(each)}\n\n" for each in told) + "data: [DONE]\n\n"


@agrees
def test_hostile_text_is_text(page: Any, device: Device) -> None:
    """The server's words are put in its mouth here: no model can be counted on to say this."""
    verified = {"state": "verified", "by": [HOSTILE]}
    retracted = {"state": "provisional", "retracted_from": len(HOSTILE) + 1}
    said = stream(
        ("🐎", verified), (HOSTILE, verified), (HOSTILE, {"state": "provisional", "by": [None]}), ("", retracted)
    )
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body=said, content_type="text/event-stream"))
    opened(page, device)
    page.locator("#text").fill(HOSTILE)
    page.locator("#send").click()
    assert answered(page) == "🐎" + HOSTILE + HOSTILE  # the last is struck and not gone yet
    expect(page.locator("article del")).to_have_text(HOSTILE)
    expect(page.locator("article.user")).to_have_text(HOSTILE)
    assert page.locator("main img, main script, main b").count() == 0
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.querySelectorAll('del').length") == 2


@agrees
def test_the_policy_holds_where_the_page_would_not(page: Any, device: Device) -> None:
    opened(page, device)
    broken = page.evaluate(
        """async (hostile) => {
          const broken = [];
          document.addEventListener("securitypolicyviolation", (event) => broken.push(event.effectiveDirective));
          try { document.querySelector("main").innerHTML = hostile; } catch (error) { broken.push(error.name); }
          const image = document.querySelector("main").appendChild(document.createElement("img"));
          image.setAttribute("src", "http://127.0.0.2:9/x");
          image.setAttribute("style", "color: red");
          await fetch("http://127.0.0.2:9/").catch((error) => broken.push(error.name));
          await new Promise((resolve) => setTimeout(resolve));
          return broken;
        }""",
        HOSTILE,
    )
    assert {"require-trusted-types-for", "img-src", "connect-src", "style-src-attr"} <= set(broken)
    assert broken.count("TypeError") == 2
    assert page.evaluate("window.hacked") is None
    page.errors.clear()  # the browser told of each


@agrees
def test_an_error_is_told_where_the_answer_would_be(page: Any, device: Device) -> None:
    opened(page, device)
    page.locator("#link").click()
    page.locator("#mode").select_option("cloud")  # nobody drafts there, so nobody answers alone
    page.locator("#text").fill(PROMPT)
    page.locator("#send").click()
    expect(page.locator("article [role=alert]")).to_contain_text("the link is cut on purpose")
    page.errors.clear()  # of the 503
