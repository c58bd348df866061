"""The app for phones in a real Chromium: it drafts there, a real verifier checks; offline, reloaded, and put right."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from cloud_verifier.settings import ServiceSettings
from cloud_verifier.target import LocalVerifier, open_verifier
from cloud_verifier.tokens import TokenFile
from outrider.engines import EngineSettings
from outrider.framing import FRAME_BYTES, PAGE_BYTES, from_frame
from outrider.manifest import load_folder
from outrider.tokens import TextCodec
from outrider.wire import Draft, decode_up, unpack_ids
from tests.browser.conftest import HANG_MS, NARROW, amid_answer, slowed, steps
from tests.browser.phone import Service, service, write_store
from tests.browser.test_page import WATCH
from tests.edge_runtime.cli.test_verifier import verifier
from tests.vectors import FILE, UP

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("phone")]

expect = pytest.importorskip("playwright.sync_api", reason="run: make browser").expect
expect.set_options(timeout=HANG_MS)
SETTINGS = EngineSettings(num_threads=1, max_context=256, max_sequences=4)
PROMPT = "hi there"
NUM_TOKENS = 40
SEED = 15  # with it the target has much to say at 0.8, too
PASS_S = 0.04  # a step: as slow as models of weight are, so that a drafter on a busy machine has its chance
TEXTS = [
    "hello hello",
    "  two\n\nlines\t",
    "Grüße, 你好 🙂",
    "<|im_end|> <tool> x",
    "a" * 300,
    "It's 12,345.67 — don't",
]
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
KEPT = """() => new Promise((resolve, reject) => {
  const request = indexedDB.open("outrider");
  request.onerror = () => reject(request.error);
  request.onsuccess = () => {
    const found = request.result.transaction("answers").objectStore("answers").getAll();
    found.onsuccess = () => { request.result.close(); resolve(found.result); };
  };
})"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        return write_store(tmp_path_factory.mktemp("phone"), patch)


@dataclass
class Elsewhere:
    """A verifier in a process of its own. `url` is where the app is."""

    url: str

    @property
    def origin(self) -> str:
        return self.url.removesuffix("/phone/")


Served = Service | Elsewhere
alone_asks: list[int] = []  # while the target is asked alone it need not be slow


@pytest.fixture(scope="module")
def target(store: Path) -> Iterator[LocalVerifier]:
    target = open_verifier(load_folder(store / "tiny"), SETTINGS)

    def pause() -> float:
        steps.wait()
        return 0 if alone_asks else PASS_S

    target.engine.extend = slowed(target.engine.extend, pause)  # type: ignore[method-assign]
    yield target
    target.close()


@pytest.fixture
def twin(target: LocalVerifier, store: Path) -> Iterator[Service]:
    """With the drafter that agrees with the target, as good as always."""
    with service(target, store / "twin") as running:
        yield running


@pytest.fixture
def other(target: LocalVerifier, store: Path) -> Iterator[Service]:
    """With the drafter that does not."""
    with service(target, store / "other") as running:
        yield running


@pytest.fixture(scope="module")
def idle(browser: Any, target: LocalVerifier, store: Path) -> Iterator[Any]:
    """The app, loaded, for who asks its modules and no verifier."""
    with service(target, store / "twin") as at:
        page = browser.new_page()
        loaded(page, at)
        yield page
        page.context.close()


def loaded(page: Any, at: Served) -> None:
    page.goto(at.url)
    expect(page.locator("#send")).to_be_enabled()


def opened(page: Any, at: Served, *, temperature: float = 0, seed: int = SEED, num_tokens: int = NUM_TOKENS) -> None:
    loaded(page, at)
    page.locator("summary").click()
    page.locator("#temperature").fill(str(temperature))
    page.locator("#seed").fill(str(seed))
    page.locator("#max_tokens").fill(str(num_tokens))
    page.locator("summary").click()


def ask(page: Any, text: str = PROMPT) -> None:
    page.locator("#text").fill(text)
    page.locator("#send").click()


def ended(page: Any, how: str) -> dict[str, Any]:
    """The last answer as this device keeps it, once it is over."""
    expect(page.locator("#status")).to_have_text(f"{how} answer")
    expect(page.locator("#send")).to_be_visible()
    kept: dict[str, Any] = page.evaluate(KEPT)[-1]
    return kept


def alone(at: Served, answer: dict[str, Any]) -> dict[str, Any]:
    """What the target says to the same by itself."""
    params = answer["params"]
    body = {"tokens": answer["promptIds"], "max_tokens": answer["maxTokens"], "stop_ids": [2], "stream": False}
    alone_asks.append(1)
    told: dict[str, Any] = httpx.post(f"{at.origin}/v1/generate", json={**body, "params": params}, timeout=60).json()
    alone_asks.pop()
    return told


def is_the_target_s(at: Served, answer: dict[str, Any]) -> None:
    told = alone(at, answer)
    assert answer["verifiedIds"] == told["tokens"]
    assert answer["finish"] == told["finish"]
    assert answer["provisionalIds"] == []
    assert answer["target"] == told["target"]


def drafts_sent(page: Any) -> list[int]:
    """How many guesses each Draft holds that the page sends from now on."""
    sent: list[int] = []

    def note(frame: bytes) -> None:
        message = decode_up(from_frame(frame))
        if isinstance(message, Draft):
            sent.append(len(unpack_ids(message.token_ids)))

    page.on("websocket", lambda socket: socket.on("framesent", note))
    return sent


def counts(page: Any) -> tuple[int, int]:
    """Drafts that were accepted, and those that passes looked at."""
    accepted, _, drafted = page.locator("#acceptance").text_content().partition(" of ")
    return int(accepted), int(drafted)


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_it_drafts_in_the_browser_and_says_what_the_target_says(page: Any, twin: Service, temperature: float) -> None:
    opened(page, twin, temperature=temperature)
    with steps.held():  # else a target that is faster than a busy machine's drafter has said all that can be seen
        guesses = drafts_sent(page)
        ask(page)
        for _ in range(HANG_MS // 10):
            if sum(guesses) >= 4:
                break
            page.wait_for_timeout(10)
    answer = ended(page, "Verified")
    is_the_target_s(twin, answer)
    accepted, drafted = counts(page)
    assert accepted > drafted / 2  # the noise is the same on both sides, so sampling changes little
    expect(page.locator("article .drafted")).not_to_have_count(0)
    expect(page.locator("article .provisional, article del")).to_have_count(0)
    text = page.locator("article.assistant > span").first.text_content()
    ask(page, "hello")
    second = ended(page, "Verified")
    is_the_target_s(twin, second)
    codec = TextCodec(load_folder(twin.drafter))
    said = [("user", PROMPT), ("assistant", text), ("user", "hello")]
    assert second["promptIds"] == codec.encode_chat([{"role": role, "content": content} for role, content in said])


def test_a_drafter_that_is_wrong_costs_no_token(page: Any, other: Service) -> None:
    opened(page, other, temperature=0.8)
    ask(page)
    is_the_target_s(other, ended(page, "Verified"))
    expect(page.locator("article .own")).not_to_have_count(0)


@pytest.mark.parametrize("page", [{"viewport": NARROW}], indirect=True)
def test_offline_confirmed_and_after_a_reload(page: Any, twin: Service) -> None:
    opened(page, twin)
    ask(page)
    first = ended(page, "Verified")
    twin.stop()
    ask(page)
    kept = ended(page, "Provisional")
    assert len(kept["provisionalIds"]) == NUM_TOKENS
    page.reload()  # nothing but this device is there to load it from
    expect(page.locator("#send")).to_be_enabled()
    expect(page.locator("article")).to_have_count(4)
    expect(page.locator("article .note").last).to_contain_text("alone")
    expect(page.locator("#waiting")).to_have_text("1 to verify")
    assert page.evaluate(KEPT) == [first, kept]
    opened_offline = page.locator("article.assistant > span").nth(2).text_content()
    assert opened_offline
    ask(page, "hello")
    assert ended(page, "Provisional")["provisionalIds"]
    expect(page.locator("#waiting")).to_have_text("2 to verify")
    twin.start()
    page.evaluate("dispatchEvent(new Event('online'))")
    expect(page.locator("#waiting")).to_be_hidden()
    expect(page.locator("article .provisional")).to_have_count(0)
    answers = page.evaluate(KEPT)
    assert len(answers) == 3
    for answer in answers:
        is_the_target_s(twin, answer)
    page.errors.clear()  # the browser told of each connection that it could not make


def test_offline_and_taken_back(page: Any, other: Service) -> None:
    opened(page, other)
    page.locator("#link").click()
    ask(page)
    kept = ended(page, "Provisional")
    assert kept["verifiedIds"] == []
    before = page.locator("article.assistant > span").first.text_content()
    page.evaluate(WATCH)
    page.locator("#link").click()
    answer = ended(page, "Verified")
    is_the_target_s(other, answer)
    assert answer["verifiedIds"] != kept["provisionalIds"]
    [struck] = page.evaluate("seen.del")
    assert before.endswith(struck)
    expect(page.locator("#log article del")).to_have_count(0)  # struck, and gone
    assert page.locator("article.assistant > span").first.text_content() != before
    assert answer["promptIds"] == kept["promptIds"]


def test_the_link_breaks_amid_an_answer(page: Any, twin: Service) -> None:
    opened(page, twin, temperature=0.8, num_tokens=150)
    with amid_answer(page, lambda: ask(page)):
        page.locator("#link").click()
        expect(page.locator("article .provisional")).not_to_have_count(0)
    assert page.locator("article .drafted, article .own").count() > 0  # what was verified stays
    page.locator("#link").click()
    ended(page, "Verified")
    expect(page.locator("#waiting")).to_be_hidden()
    is_the_target_s(twin, page.evaluate(KEPT)[-1])


def test_another_tab_leaves_an_answer_under_way_alone(page: Any, twin: Service) -> None:
    opened(page, twin)
    with amid_answer(page, lambda: ask(page)):
        second = page.context.new_page()
        loaded(second, twin)
        expect(second.locator("#waiting")).to_have_text("1 to verify")
    answer = ended(page, "Verified")
    is_the_target_s(twin, answer)
    expect(second.locator("#tokens")).to_have_text("\u2013")  # it had nothing to do with it
    second.close()


def test_a_page_that_was_closed_amid_an_answer_finishes_it_the_next_time(page: Any, twin: Service) -> None:
    opened(page, twin, num_tokens=60)
    with amid_answer(page, lambda: ask(page)):
        page.reload()
        expect(page.locator("#waiting")).to_have_text("1 to verify")
    expect(page.locator("#status")).to_have_text("Verified answer")
    [answer] = page.evaluate(KEPT)
    is_the_target_s(twin, answer)
    assert page.locator("article.assistant > span").first.text_content()


def test_stopped_it_stays_as_it_is(page: Any, twin: Service) -> None:
    opened(page, twin, num_tokens=200)
    with amid_answer(page, lambda: ask(page)):
        page.locator("#text").fill("and more")
        page.locator("#text").press("Enter")
        expect(page.locator("#status")).to_contain_text("Not sent")
        expect(page.locator("#text")).to_have_value("and more")
        page.locator("#stop").click()
        expect(page.locator("#status")).to_have_text("Stopped")
    expect(page.locator("#waiting")).to_be_hidden()
    [answer] = page.evaluate(KEPT)
    assert 0 < len(answer["verifiedIds"]) < 200
    assert answer["finish"] == "stopped"
    expect(page.locator("#tokens")).not_to_have_text("\u2013")
    page.locator("#new").click()
    expect(page.locator("article")).to_have_count(0)
    assert page.locator("dd").all_text_contents() == [*["\u2013"] * 5, "twin"]  # the drafter stays
    expect(page.locator("#strip .drafted, #strip .own, #strip .ahead")).to_have_count(0)


OF_ANOTHER_TARGET = KEPT.replace(
    "const found",
    """const store = request.result.transaction("answers", "readwrite").objectStore("answers");
    store.getAll().onsuccess = ({ target }) =>
      target.result.forEach((answer) => store.put({ ...answer, target: "f".repeat(64) }));
    const found""",
)


def test_what_the_verifier_refuses_for_good_is_unverified_and_says_why(page: Any, twin: Service) -> None:
    opened(page, twin)
    page.locator("#link").click()
    ask(page)
    kept = ended(page, "Provisional")
    expect(page.locator("#waiting")).to_have_text("1 to verify")
    page.evaluate(OF_ANOTHER_TARGET)
    page.reload()  # that restores the link
    expect(page.locator("article .note").last).to_contain_text("Unverified, and stays so: ")
    expect(page.locator("article .note").last).to_contain_text("target")
    expect(page.locator("#waiting")).to_be_hidden()
    [refused] = page.evaluate(KEPT)
    assert refused == {**kept, "target": "f" * 64, "refusal": refused["refusal"]}
    twin.stop()
    page.reload()  # without the verifier the reason is still there
    expect(page.locator("#send")).to_be_enabled()
    expect(page.locator("article .note").last).to_contain_text(refused["refusal"])
    expect(page.locator("#waiting")).to_be_hidden()
    page.errors.clear()  # the browser told of each connection that it could not make


def test_what_was_not_answered_is_not_asked_again(page: Any, twin: Service) -> None:
    opened(page, twin)
    with steps.held():
        ask(page)
        page.locator("#stop").click()
        expect(page.locator("#status")).to_have_text("Stopped")
    ask(page, "hello")
    answer = ended(page, "Verified")
    is_the_target_s(twin, answer)
    codec = TextCodec(load_folder(twin.drafter))
    assert answer["promptIds"] == codec.encode_chat([{"role": "user", "content": "hello"}])


def test_a_step_that_cannot_be_kept_is_not_shown(page: Any, twin: Service) -> None:
    opened(page, twin)
    page.evaluate(
        """() => {
          const put = IDBObjectStore.prototype.put;
          let puts = 0;
          IDBObjectStore.prototype.put = function (...values) {
            const request = put.apply(this, values);
            const fails = this.name === "answers" && puts++; // all but the question
            if (fails) request.addEventListener("success", () => this.transaction.abort());
            return request;
          };
        }"""
    )
    ask(page)
    expect(page.locator("#status")).to_contain_text("keeps nothing")
    assert page.locator("article.assistant > span").first.text_content() == ""
    [answer] = page.evaluate(KEPT)
    assert answer["verifiedIds"] == answer["provisionalIds"] == []


@pytest.mark.parametrize("page", [{"service_workers": "block"}], indirect=True)  # else it is not routed
def test_who_asks_is_not_held_up_by_a_verifier_that_is_not_there(page: Any, twin: Service) -> None:
    opened(page, twin)
    page.locator("#link").click()
    ask(page)
    ended(page, "Provisional")
    page.route("**/v1/models", lambda route: None)  # no word, and no refusal
    page.route_web_socket("**/v1/stream", lambda socket: None)
    page.locator("#link").click()
    page.evaluate("() => new Promise((resolve) => setTimeout(resolve))")
    ask(page, "hello")
    expect(page.locator("article.user")).to_have_count(2)
    page.locator("#stop").click()
    expect(page.locator("#status")).to_have_text("Stopped")


@pytest.mark.parametrize("page", [{"service_workers": "block"}], indirect=True)
def test_the_drafter_that_is_here_stays_until_another_is_here_whole(page: Any, twin: Service) -> None:
    loaded(page, twin)
    another = {**httpx.get(f"{twin.url}drafter/manifest.json").json(), "fingerprint": "f" * 64}
    page.route("**/drafter/manifest.json", lambda route: route.fulfill(json=another))
    page.route("**/drafter/model.onnx", lambda route: route.abort())
    page.reload()
    expect(page.locator("#status")).to_have_text("no verifier answers")
    page.unroute("**/drafter/manifest.json")
    page.route("**/drafter/**", lambda route: route.abort())  # as offline
    loaded(page, twin)
    page.errors.clear()  # the browser told of what it could not load


def test_a_verifier_with_tokens(page: Any, target: LocalVerifier, store: Path, tmp_path: Path) -> None:
    tokens = TokenFile(tmp_path / "tokens.json")
    _, secret = tokens.add("phone")
    with service(target, store / "twin", ServiceSettings(tokens=tokens)) as at:
        page.goto(at.url)
        expect(page.locator("#lock")).to_be_visible()
        page.locator("#token").fill("no-such-token")
        page.locator("#token").press("Tab")
        expect(page.locator("#status")).to_contain_text("token")
        expect(page.locator("#send")).to_be_disabled()
        page.locator("#text").fill("too early")
        page.locator("#text").press("Enter")
        page.locator("#token").fill(secret)
        page.locator("#token").press("Tab")
        expect(page.locator("#send")).to_be_enabled()
        expect(page.locator("#lock")).to_be_hidden()
        expect(page.locator("#text")).to_have_value("too early")
        page.locator("#temperature").evaluate("(element) => (element.value = 0)")
        page.locator("#max_tokens").evaluate("(element) => (element.value = 20)")
        ask(page)
        assert len(ended(page, "Verified")["verifiedIds"]) == 20
        tokens.revoke("phone")
        ask(page)
        expect(page.locator("#lock")).to_be_visible()
        expect(page.locator("#waiting")).to_have_text("1 to verify")
        page.locator("#token").fill(tokens.add("again")[1])
        page.locator("#token").press("Tab")
        expect(page.locator("#waiting")).to_be_hidden()
        assert len(page.evaluate(KEPT)[1]["verifiedIds"]) == 20
    page.errors.clear()  # the browser told of each 401


def test_beside_a_verifier_of_the_command_line(page: Any, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTRIDER_HOME", str(store))
    with verifier("--phone", "twin", "--port", "0") as url:
        at = Elsewhere(url)
        opened(page, at)
        ask(page)
        is_the_target_s(at, ended(page, "Verified"))
    ask(page, "hello")  # it was killed
    assert ended(page, "Provisional")["provisionalIds"]
    page.errors.clear()  # the browser told of the connection that it could not make


def test_noise_and_choices_are_those_of_the_vectors(idle: Any) -> None:
    vectors = json.loads(FILE.read_text())
    computed = idle.evaluate(
        """async ({noise, choices}) => {
          const {bitsAt, gumbel, choose} = await import("./noise.js");
          const bits = noise.map(({seed, position, ids}) => ids.map(bitsAt(seed, position)));
          const chosen = choices.map((each) => choose(new Float32Array(each.logits), each, each.position));
          const mapped = (each) => choose(new Float32Array(each.logits), each, each.position, each.id_map);
          const ids = choices.map((each) => each.id_map[mapped(each)]);
          return {bits, noise: bits.map((row) => row.map(gumbel)), chosen, ids};
        }""",
        vectors,
    )
    assert computed["bits"] == [each["bits"] for each in vectors["noise"]]
    for row, each in zip(computed["noise"], vectors["noise"], strict=True):
        assert row == pytest.approx(each["noise"], rel=1e-12)
    assert computed["chosen"] == [each["chosen"] for each in vectors["choices"]]
    assert computed["ids"] == [each["chosen_id"] for each in vectors["choices"]]


def test_messages_are_those_of_the_vectors(idle: Any) -> None:
    vectors = json.loads(FILE.read_text())
    read, made = idle.evaluate(
        """async ({up, down}) => {
          const {readFrame, openFrame, draftFrame, cancelFrame} = await import("./wire.js");
          const camel = (name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
          const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
          const read = down.map(({frame}) => {
            const bytes = new Uint8Array(frame.match(/../g).map((pair) => parseInt(pair, 16)));
            const message = readFrame(bytes.buffer);
            const plain = ([name, value]) => [name, value instanceof Uint8Array ? [...value] : value];
            return Object.fromEntries(Object.entries(message).map(plain));
          });
          const made = up.map((fields) => {
            const message = Object.fromEntries(Object.entries(fields).map(([name, value]) => [camel(name), value]));
            message.confidences = message.confidences?.map((byte) => byte / 255);
            return hex({open: openFrame, draft: draftFrame, cancel: cancelFrame}[fields.kind](message));
          });
          return [read, made];
        }""",
        vectors,
    )
    names = {"numVocab": "n_vocab"}
    for message, vector in zip(read, vectors["down"], strict=True):
        for name, value in message.items():
            snake = names.get(name, "".join(f"_{c.lower()}" if c.isupper() else c for c in name))
            assert value == vector[snake], name
    for frame, message in zip(made, UP, strict=True):
        assert len(frame) // 2 in (FRAME_BYTES, PAGE_BYTES, 2 * PAGE_BYTES)
        assert decode_up(from_frame(bytes.fromhex(frame))) == message


def test_what_is_no_message_is_refused(idle: Any) -> None:
    verified = [12, 0, 1, b"\1\0\0\0", 0, 0]
    lies: list[Any] = [
        [],
        7,
        [99],
        [12],
        [*verified, None, [], b"", 1],
        [12, 0, -1, b"", 0, 0],
        [12, 0, 1.5, b"", 0, 0],
    ]
    lies += [[12, 0, 1, b"\1\0\0", 0, 0], [*verified, "maybe"], [14, -2, 0], [13, 1, "x"]]
    frames = [list(msgspec.msgpack.encode(lie) + b"\x80") for lie in lies] + [[], [0, 0], [0xC1, 0x80]]
    frames.append(list(msgspec.msgpack.encode(verified) + b"\x80"))
    told = idle.evaluate(
        """async (frames) => {
          const {readFrame} = await import("./wire.js");
          return frames.map((frame) => {
            try { return readFrame(Uint8Array.from(frame).buffer).kind; } catch (error) { return error.code; }
          });
        }""",
        frames,
    )
    assert told == ["protocol"] * (len(frames) - 1) + ["verified"]


def test_a_lie_does_not_move_the_frontier(idle: Any) -> None:
    """A Verified after the list 1 2 3 with the drafts 4 5 sent, of which 4 was said; `limit` 8, ids below 9."""
    true = {"epoch": 0, "start": 3, "tokenIds": [4, 6], "numAccepted": 1, "numDrafted": 2, "finish": None}
    lies = [{"start": 2}, {"start": 4}, {"tokenIds": []}, {"tokenIds": [4, 9]}, {"tokenIds": [4, 5, 6, 7, 8, 1]}]
    lies += [{"numAccepted": 2}, {"numAccepted": 3}, {"numDrafted": 3}, {"numAccepted": 1, "tokenIds": [5, 6]}]
    told = idle.evaluate(
        """async (messages) => {
          const {Frontier} = await import("./frontier.js");
          return messages.map((message) => {
            const frontier = new Frontier([1, 2, 3]);
            frontier.guess(0, 3, [{id: 4, confidence: 1}, {id: 5, confidence: 1}]);
            frontier.nextDraft();
            try { frontier.commit(message, {limit: 8, numVocab: 9}); } catch (error) {
              return [error.code, frontier.everything(), frontier.epoch];
            }
            return [null, frontier.everything(), frontier.epoch];
          });
        }""",
        [true, *({**true, **lie} for lie in lies)],
    )
    assert told == [[None, [1, 2, 3, 4, 6], 1], *[["protocol", [1, 2, 3, 4, 5], 0]] * len(lies)]


def test_text_becomes_the_ids_that_python_makes_of_it(idle: Any, store: Path) -> None:
    codec = TextCodec(load_folder(store / "twin"))
    ids = [codec.encode_chat([{"role": "user", "content": text}]) for text in TEXTS]
    computed, texts = idle.evaluate(
        """async ([texts, ids]) => {
          const {TextCodec} = await import("./text.js");
          const files = await (async () => {
            const name = (await caches.keys()).find((name) => name.startsWith("drafter-"));
            const cache = await caches.open(name);
            return (file) => cache.match(`drafter/${file}`).then((response) => response.text());
          })();
          const codec = new TextCodec(JSON.parse(await files("tokenizer.json")),
            JSON.parse(await files("tokenizer_config.json")), await files("chat_template.jinja"));
          return [texts.map((content) => codec.encodeChat([{role: "user", content}])),
            ids.map((each) => codec.decode(each, {isWhole: true}))];
        }""",
        [TEXTS, ids],
    )
    assert computed == ids
    assert texts == [codec.decode(each) for each in ids]


def test_the_page_runs_nothing_but_its_own(page: Any, twin: Service) -> None:
    opened(page, twin, num_tokens=5)
    ask(page, HOSTILE)
    ended(page, "Verified")
    assert page.locator("article.user").text_content() == HOSTILE
    broken = page.evaluate(
        """async (hostile) => {
          const broken = [];
          document.addEventListener("securitypolicyviolation", (event) => broken.push(event.effectiveDirective));
          try { document.body.innerHTML = hostile; } catch (error) { broken.push(error.name); }
          try { new Worker("wire.js"); } catch (error) { broken.push(error.name); }
          try { trustedTypes.createPolicy("mine", {}); } catch (error) { broken.push(error.name); }
          await fetch("http://127.0.0.2:9/").catch((error) => broken.push(error.name));
          await new Promise((resolve) => setTimeout(resolve));
          return broken;
        }""",
        HOSTILE,
    )
    assert {"require-trusted-types-for", "connect-src", "trusted-types"} <= set(broken)
    assert sum(name.endswith("Error") for name in broken) == 4
    assert page.evaluate("window.hacked") is None
    page.errors.clear()  # the browser told of each


def test_it_can_be_installed(idle: Any) -> None:
    session = idle.context.new_cdp_session(idle)
    found = session.send("Page.getAppManifest")
    assert found["errors"] == []
    assert session.send("Page.getInstallabilityErrors")["installabilityErrors"] == []
