"""A stored model as a machine of the simulation: by the profile that a target would run with."""

from benchmarks.machines import find_machine
from outrider.catalog import store_folder
from outrider.manifest import Manifest, Profile, Source, write_manifest


def profile(engine: str, step_ms: float, row_ms: float) -> Profile:
    cost_ms = {size: step_ms + row_ms * size for size in range(1, 33)}
    return Profile(engine, "this machine", 2, 256, cost_ms, [list(range(1, 33))], batch_exact=False)


def test_of_several_profiles_the_one_whose_passes_cost_least_counts() -> None:
    fast, slow = profile("fast", 40.0, 2.0), profile("slow", 30.0, 10.0)
    for profiles in ({"1": fast, "2": slow}, {"1": slow, "2": fast}):
        folder = store_folder("planted")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").touch()
        manifest = Manifest(
            name="planted",
            format="onnx",
            architecture="llama",
            file="model.onnx",
            files={},
            source=Source("random", "0"),
            licence="none",
            n_vocab=16,
            max_context=512,
            stop_ids=[],
            tokenizer_fingerprint="v",
            profiles=profiles,
        )
        write_manifest(folder, manifest)
        machine = find_machine("planted")
        assert "fast" in machine.about
        assert machine.verify(1, 8) == fast.cost_ms[8]
