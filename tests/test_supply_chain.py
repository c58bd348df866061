"""What the program is made of: no code that runs data, and libraries no older than the fixes it needs."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
SOURCES = [
    path
    for name in ("outrider", "cloud_verifier", "edge_runtime", "export", "benchmarks")
    for path in (ROOT / name).rglob("*.py")
]
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
CALLS = {"eval", "exec", "recv_pyobj", "load_pickle", "read_pickle"}
# The fixes: request limits in starlette, chunked bodies in h11, the sandbox in jinja2, external data in onnx.
FLOORS = {"starlette": "0.49.1", "h11": "0.16", "jinja2": "3.1.5", "onnx": "1.21"}

WORDS = ("weights_only", "allow_pickle", "trust_remote_code")
NAMED = re.compile("|".join((*MODULES, *CALLS, *WORDS, r"torch\.load")))  # in every module that has one of them


def runs_data(source: str) -> list[str]:
    """What in a module could run what it reads."""
    found: list[str] = []
    if not NAMED.search(source):
        return found
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
            words = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg in WORDS}
            if name in CALLS or name.split(".")[-1] in CALLS - {"eval", "exec"}:
                found.append(name)
            if name.endswith("torch.load") and words.get("weights_only") != "True":
                found.append(name)
            if name.split(".")[-1] in ("load", "save") and words.get("allow_pickle") == "True":
                found.append(f"{name} with allow_pickle")
            if words.get("trust_remote_code") not in (None, "False"):
                found.append(f"{name} with trust_remote_code")
    return found


def test_no_module_runs_what_it_reads() -> None:
    assert len(SOURCES) > 250
    assert {str(path): found for path in SOURCES if (found := runs_data(path.read_text()))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from marshal import loads",
        "import yaml",
        "def f(x):\n    return eval(x)",
        "exec('x')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "socket.recv_pyobj()",
        "np.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "AutoModel.from_pretrained(path, trust_remote_code=flag)",
    ],
)
def test_what_would_run_data_is_found(source: str) -> None:
    assert runs_data(source)


@pytest.mark.parametrize(
    "source", ["model.eval()", "torch.load(path, weights_only=True)", "f(trust_remote_code=False)", "re.compile('x')"]
)
def test_what_would_not_is_not(source: str) -> None:
    assert runs_data(source) == []


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    return [Requirement(line) for line in lines if not line.startswith("outrider")]


@pytest.mark.parametrize("name", FLOORS)
def test_what_is_installed_and_what_is_asked_for_meets_the_floors(name: str) -> None:
    assert Version(version(name)) >= Version(FLOORS[name])
    asked = [requirement for requirement in requirements() if requirement.name == name]
    assert asked, f"{name} is not asked for"
    for requirement in asked:
        floors = [clause.version for clause in requirement.specifier if clause.operator in (">=", "==")]
        assert max(map(Version, floors)) >= Version(FLOORS[name])


def test_every_requirement_has_a_floor() -> None:
    for requirement in requirements():
        assert re.search(r">=|==|<", str(requirement.specifier)), requirement


def test_no_library_reports_to_its_maker(tmp_path: Path) -> None:
    """ONNX Runtime writes the device's id where it reports; it does not where we load it, or have it loaded."""
    loads = {
        "bare": "import onnxruntime",
        "engine": "import outrider.engines.onnx",
        "doctor": "from edge_runtime.checkup.child import run_child; "
        "assert run_child('edge_runtime.checkup.libraries', 'onnxruntime') == (['onnxruntime ok'], '')",
    }
    for name, load in loads.items():
        home = tmp_path / name
        home.mkdir()
        environment = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", load], env=environment, check=True)
    left = {name for name in loads if list((tmp_path / name).rglob("deviceid"))}
    assert left == {"bare"}
