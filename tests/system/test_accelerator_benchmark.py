"""The benchmark for accelerators, at tiny sizes on a CPU: its experiments are right, and a run resumes."""

import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sspd_jax.method import network as networks
from sspd_jax.method.layers import conv3d
from sspd_jax.method.settings import NetworkSettings

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "speed" / "accelerator.py"
QUICK = "--only=facts|roofline|golden"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("accelerator", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["accelerator"] = module  # dataclasses look their module up
    path = list(sys.path)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = path
    del sys.modules["accelerator"]


def relative(actual, expected):
    return jax.tree.map(
        lambda a, e: float(jnp.abs(a - e).max() / (jnp.abs(e).max() + 1e-9)), actual, expected
    )


# --- the experiments --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("most", [1, 4])
@pytest.mark.parametrize(("window", "padding"), [((3, 5, 3), 1), ((3, 1, 1), 1), ((1, 1, 1), 0)])
def test_grouped_frames_are_convolved_like_any(benchmark, most, window, padding):
    keys = jax.random.split(jax.random.key(0), 2)
    x, kernel = jax.random.normal(keys[0], (2, 8, 7, 6, 3)), jax.random.normal(keys[1], (*window, 3, 5))

    def gradients(convolve):
        return jax.vjp(lambda *both: convolve(*both), x, kernel)

    expected, pull = gradients(lambda x, k: conv3d.conv3d(x, k, time_padding=padding, form="direct"))
    found, pull_found = gradients(lambda x, k: benchmark.grouped_conv(x, k, padding, most=most))
    cotangent = jax.random.normal(jax.random.key(2), expected.shape)
    assert found.shape == expected.shape
    errors = relative((found, pull_found(cotangent)), (expected, pull(cotangent)))
    assert max(jax.tree.leaves(errors)) < 1e-5


@pytest.fixture(scope="module")
def network():
    settings = NetworkSettings(
        input_size=22, stages=((4, 8),), features=16, predictor_width=4, ts_kernels=(5,), ts_strides=(1,),
        conv="direct",
    )  # fmt: skip
    params, batch_stats = networks.init_variables(settings, jax.random.key(0))
    batch_stats = jax.tree.map(lambda a: a + 0.1, batch_stats)
    return settings, params, batch_stats, jax.random.normal(jax.random.key(1), (2, 16, 22, 22, 3))


@pytest.mark.slow
def test_folded_frames_are_read_like_any(benchmark, network, quick_compilation):
    settings, params, batch_stats, video = network

    def learn(read):
        def loss(params):
            reading, statistics = read(settings, params, batch_stats, video)
            return sum(jnp.mean(w**2) for w in reading.ssw) + jnp.mean(reading.wave**3), (reading, statistics)

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

    errors = relative(learn(benchmark.folded_read), learn(networks.forward))
    assert max(jax.tree.leaves(errors)) < 1e-4
    waves = (read(*network) for read in (benchmark.folded_wave, networks.infer_wave))
    np.testing.assert_allclose(*waves, rtol=1e-5, atol=1e-6)


def test_what_is_written_otherwise_is_put_back(benchmark):
    kept = conv3d._direct, networks.forward, networks.infer_wave
    for way in benchmark.EXPERIMENTS:
        with benchmark.written(way):
            assert conv3d._direct is not kept[0]
            as_before = networks.forward is kept[1], networks.infer_wave is kept[2]
            assert as_before == (way in ("grouped", "channels"),) * 2
        assert (conv3d._direct, networks.forward, networks.infer_wave) == kept


# --- counting ---------------------------------------------------------------------------------------


def test_a_clip_takes_84_billion_multiply_adds(benchmark):
    assert benchmark.flops(NetworkSettings(), 300, 1) / 2e9 == pytest.approx(84.0, abs=0.05)


def test_the_roofline_is_the_longer_of_arithmetic_and_traffic(benchmark):
    settings = NetworkSettings(dtype="bfloat16")
    products = {"bfloat16_flops": 1e12, "copy_bytes_s": 1e30}
    assert benchmark.roofline_s(settings, 300, products, step=True) == pytest.approx(
        benchmark.flops(settings, 300, 4) / 1e12
    )
    twice = benchmark.roofline_s(settings, 300, {"bfloat16_flops": 1e30, "copy_bytes_s": 1e9}, step=True)
    once = benchmark.roofline_s(settings, 300, {"bfloat16_flops": 1e30, "copy_bytes_s": 1e9}, step=False)
    assert twice == pytest.approx(5 * once)
    assert benchmark.roofline_s(settings, 300, None, step=True) is None


# --- running ----------------------------------------------------------------------------------------


def run(folder, *flags):
    command = [sys.executable, str(SCRIPT), "--tiny", f"--output={folder}", *flags]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def read(folder):
    (results,) = json.loads((folder / "accelerator.json").read_text())["cards"].values()
    return results


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_and_a_finished_one_is_left_alone(tmp_path):
    command = [sys.executable, "-u", str(SCRIPT), "--tiny", f"--output={tmp_path}", QUICK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("golden"):
                process.send_signal(signal.SIGKILL)
                break
    before = read(tmp_path)
    assert before.keys() == {"facts", "roofline"}

    said = run(tmp_path, QUICK)
    after = read(tmp_path)
    assert {name: after[name] for name in before} == before
    assert "roofline …" not in said
    checked = after["golden: float32, highest precision"]
    assert checked["status"] == "done" and checked["result"]["ok"]
    assert 0 < checked["result"]["checks"]["losses"]["error"] < 1e-6

    written = (tmp_path / "accelerator.json").read_bytes()
    assert "…" not in run(tmp_path, QUICK)
    assert (tmp_path / "accelerator.json").read_bytes() == written


@pytest.mark.slow
def test_a_section_that_takes_too_long_is_ended_and_the_others_run(benchmark, tmp_path, monkeypatch, capsys):
    slow = {**benchmark.SECTIONS}
    slow["roofline"] = benchmark.Section(slow["roofline"].run, 0.0)
    monkeypatch.setattr(benchmark, "SECTIONS", slow)
    flags = ["--tiny", f"--output={tmp_path}", "--only=facts|roofline|golden"]
    monkeypatch.setattr(sys, "argv", ["accelerator.py", *flags])
    assert benchmark.main() == 0
    results = read(tmp_path)
    assert results["roofline"]["status"] == "stopped"
    assert results["roofline"]["why"] == "it took longer than 0 s"
    assert results["golden: float32, highest precision"]["status"] == "done"
    assert "* roofline: stopped: it took longer than 0 s" in capsys.readouterr().out


@pytest.mark.parametrize(("backend", "times"), [("cpu", 1.0), ("gpu", 2.0)])
def test_a_gpu_is_allowed_twice_what_cpus_are(benchmark, monkeypatch, backend, times):
    monkeypatch.setattr(benchmark.jax, "default_backend", lambda: backend)
    monkeypatch.setattr(benchmark, "_golden_losses", lambda _: {"losses": 1.5e-6})
    checks = benchmark.golden(benchmark.Bench(benchmark.TINY, {}), "float32", "highest")["checks"]
    assert checks["losses"]["allowed"] == times * 1e-6 and checks["losses"]["ok"] == (times == 2)


@pytest.mark.slow
def test_a_whole_tiny_run_has_every_number(tmp_path):
    said = run(tmp_path)
    results = read(tmp_path)
    assert {name: r.get("why") for name, r in results.items() if r["status"] != "done"} == {}
    found = {name: r["result"] for name, r in results.items()}
    for way in ("direct", "folded"):
        step = found[f"step: {way}, bfloat16"]
        assert 0 < step["fastest_s"] <= step["step_s"] <= step["slowest_s"]
        assert 0 < step["share"] < 1 and step["compile_s"] > 0 and step["program_bytes"] > 0
    losses = [found[f"step: {way}, bfloat16"]["first_loss"] for way in ("direct", "folded")]
    assert not found["step: direct, bfloat16"]["autotuned"]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    trained = found["training: 900 clips in 12, 12 and 6"]
    assert (trained["clips"], trained["steps"], trained["batches"]) == (4, 2, [2, 2])
    assert trained["seconds"] > 0 and np.isfinite(trained["last_loss"])
    for name in ("inference: fastest way, bfloat16", "shipped network"):
        assert [row["batch"] for row in found[name]["rows"]] == [1, 4]
        assert all(row["finite"] and row["frames_s"] > 0 for row in found[name]["rows"])
    assert found["kernels of the fastest step"]["rows"][0]["ms"] > 0
    page = (tmp_path / "accelerator.md").read_text()
    assert page in said and "of the roofline" in page and "Without a result" not in page
