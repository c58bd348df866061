"""A real headless Chromium, a page of it that may log no error, and devices with tiny real models to load it from."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloud_verifier.server import create_server
from cloud_verifier.target import LocalVerifier, open_verifier
from edge_runtime.breaker import Breaker, BreakerPolicy
from edge_runtime.runtime import Runtime
from outrider import catalog
from tests.browser.gate import Gate
from tests.edge_runtime.api.tiny import SETTINGS, endpoint, write_store
from tests.serving import UNHURRIED, running

CHROMIUM = Path(os.environ.get("OUTRIDER_BROWSER", Path(__file__).parent.parent.parent / ".venv/chromium/chromium"))
PASS_S, ALONE_S = 0.02, 0.1  # a step; as slow as models of weight are: a hand on the page is in time
HANG_MS = 30_000
steps = Gate(HANG_MS / 1000)  # the target's
WIDE, NARROW = {"width": 900, "height": 720}, {"width": 360, "height": 640}


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="run: make browser")
    if not CHROMIUM.exists():
        pytest.skip("there is no Chromium; run: make browser")
    own = {"LD_LIBRARY_PATH": f"{CHROMIUM.parent}/lib", "FONTCONFIG_PATH": str(CHROMIUM.parent)}
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=str(CHROMIUM),
            args=["--no-sandbox", "--disable-gpu"],  # it may be root's, and sees only our page
            env={**os.environ, **(own if "OUTRIDER_BROWSER" not in os.environ else {})},
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """With `parametrize(..., indirect=True)`: what the context is made with.

    It comes after all else that a test asks for, and goes before it: no server ends under a page that may just ask it.
    """
    for other in set(request.fixturenames) - {"page", "request"}:
        request.getfixturevalue(other)
    context = browser.new_context(**{"viewport": WIDE, **getattr(request, "param", {})})
    context.set_default_timeout(HANG_MS)
    page = context.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda message: message.type == "error" and page.errors.append(message.text))
    yield page
    context.close()
    assert page.errors == []


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def target(home: Path) -> Iterator[LocalVerifier]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTRIDER_HOME", str(home))
        target = open_verifier(catalog.find("tiny"), SETTINGS)
    target.engine.extend = slowed(target.engine.extend, lambda: steps.wait() or PASS_S)  # type: ignore[method-assign]
    yield target
    target.close()


@contextmanager
def amid_answer(page: Any, ask: Callable[[], None]) -> Iterator[None]:
    """Some of the answer that `ask` asks for is on the page, and its target stands still."""
    said = page.locator("article .drafted, article .own")
    with steps.held():
        ask()
        while not said.count():
            steps.pass_one()
            for _ in range(20):  # the page has it soon
                if not said.count():
                    page.wait_for_timeout(20)
        yield


def slowed(work: Callable[..., Any], pause_s: Callable[[], float]) -> Callable[..., Any]:
    def slow(*arguments: Any) -> Any:
        time.sleep(pause_s())
        return work(*arguments)

    return slow


@dataclass
class Device:
    """One that drafts for the target behind a link. `url` is where its page is."""

    runtime: Runtime
    url: str


@pytest.fixture
def device(home: Path, target: LocalVerifier, request: pytest.FixtureRequest) -> Iterator[Device]:
    """Parametrized with its drafter: `tiny` agrees with the target, which is the same, `other` does not."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("OUTRIDER_HOME", str(home))
        address = stack.enter_context(running(create_server(target.loop, UNHURRIED)))
        runtime = stack.enter_context(Runtime.remote(f"http://{address}", "tiny", request.param, SETTINGS))
        assert runtime.drafter is not None
        cut: set[bool] = set()

        def pause() -> float:
            """Once the link was cut it takes its time: the link comes back before the answer is over."""
            cut.add(runtime.link_switch.is_cut)
            return ALONE_S if True in cut else 0.0

        runtime.drafter.propose = slowed(runtime.drafter.propose, pause)  # type: ignore[method-assign]
        runtime._breaker = Breaker(BreakerPolicy(first_s=0.01, longest_s=0.03))
        url = stack.enter_context(endpoint(runtime, is_remote=True, model="tiny"))
        yield Device(runtime, url.removesuffix("/v1"))
