"""Every test has its own empty store and no configuration; a test marked `weights` sees the real store.

With several workers a file is one worker's, so that what its tests share is made once; files that import torch are all
of one worker's. Long files are cut up.
"""

import atexit
import contextlib
import gc
import importlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest
from hypothesis import settings

settings.register_profile("steady", deadline=None)  # a slow moment of the machine fails no test
settings.load_profile("steady")

gc.set_threshold(100_000, 20, 100)  # most of what a test makes goes by itself; to look for the rest costs a twentieth

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # cores are shared: threads that wait must not spin
    atexit.register(os._exit, 0)  # after all others: to take every library apart at the end takes a second

TESTS = Path(__file__).parent
REAL_HOME = os.environ.get("OUTRIDER_HOME", str(TESTS.parent / "models" / "store"))


TORCH = (
    "tests/benchmarks/test_torch_pass.py",
    "tests/cloud_verifier/test_search_torch.py",
    "tests/cloud_verifier/test_torch_load.py",
    "tests/export/test_build.py",
    "tests/export/test_onnx",
    "tests/outrider/engines/test_contract.py",
    "tests/outrider/engines/test_torch.py",
)
LONG = ("tests/cloud_verifier/test_faults.py", "tests/edge_runtime/journal/test_crash.py")
# What waits longest begins first, so that no worker is left alone with it.
FIRST = (
    "tests/benchmarks/test_link.py",
    "tests/edge_runtime/test_fault_machine.py",
    "tests/edge_runtime/journal/test_crash.py",
    *TORCH,
    "tests/edge_runtime/test_session.py",
    "tests/edge_runtime/test_offline.py",
    "tests/cloud_verifier/test_drain.py",
    "tests/edge_runtime/cli",
    "tests/edge_runtime/api",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(TORCH):
                return "torch"
            return nodeid if nodeid.startswith(LONG) else nodeid.partition("::")[0]

    config.option.loadscopereorder = False
    return ByFile(config, log)


# Folders whose tests are all of one kind, by its marker.
OF_A_KIND = {"browser": "browser", "real": "weights"}


def is_wanted(folder: Path, config: pytest.Config) -> bool:
    marker = OF_A_KIND.get(folder.name)
    return folder.parent != TESTS or f"not {marker}" not in config.option.markexpr.split(" and ")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where they are not wanted their files are not imported either, which takes every worker a while."""
    return None if is_wanted(collection_path, config) else True


def pytest_sessionstart(session: pytest.Session) -> None:
    """What nobody has compiled yet, as in a fresh clone, is compiled once and not by every worker: each imports a share
    of the files, and then collects all."""
    config = session.config
    if "PYTEST_XDIST_WORKER" not in os.environ or config.args_source != pytest.Config.ArgsSource.TESTPATHS:
        return
    number, of = int(os.environ["PYTEST_XDIST_WORKER"][2:]), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    wanted = [folder for folder in TESTS.iterdir() if is_wanted(folder, config)]
    for path in sorted(path for folder in wanted for path in folder.rglob("test_*.py"))[number::of]:
        with contextlib.suppress(Exception, pytest.skip.Exception):  # the collection tells what is wrong with it
            importlib.import_module(".".join(path.relative_to(TESTS.parent).with_suffix("").parts))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((n for n, path in enumerate(FIRST) if item.nodeid.startswith(path)), len(FIRST)))


def pytest_collection_finish() -> None:
    gc.freeze()  # what is imported stays; no collection looks through it again


@pytest.fixture(autouse=True, scope="session")
def _one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every client reads the authorities that it would trust, a hundred of them; nobody asks a stranger here."""
    end = "-----END CERTIFICATE-----\n"
    file = tmp_path_factory.mktemp("authority") / "one.pem"
    file.write_text(certifi.contents().partition(end)[0] + end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(file))
        yield


NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def _own_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of what is not there; whoever writes makes the folder."""
    weights = request.node.get_closest_marker("weights") is not None
    own = tmp_path_factory.getbasetemp() / f"own{next(NUMBERS)}"
    monkeypatch.setenv("OUTRIDER_HOME", REAL_HOME if weights else f"{own}-store")
    monkeypatch.setenv("OUTRIDER_CONFIG", f"{own}-config.toml")


@pytest.fixture(scope="module")
def real_store() -> Iterator[None]:
    """The real store for a module-wide fixture, which is made before any test's own environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTRIDER_HOME", REAL_HOME)
        yield
