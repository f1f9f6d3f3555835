"""The network in `data/`: small, of the configuration that its card names; it reads and refuses at once."""

from pathlib import Path

import numpy as np
import pytest

import sspd_jax
from sspd_jax.checkpoints.network import load_network
from sspd_jax.cli import predict as cli_predict
from sspd_jax.heart_rate.confidence import SKIN_THRESHOLD
from sspd_jax.inference import predict
from sspd_jax.method import settings
from sspd_jax.simulation import sample_video
from sspd_jax.training import config as experiments

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "data" / "simulated_faces"
TIMES_S = np.arange(300) / 30


@pytest.fixture(scope="module")
def network():
    return sspd_jax.load(SHIPPED)


def test_it_is_small_holds_no_training_parts_and_is_what_the_card_says():
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 500_000
    config, params, _ = load_network(SHIPPED)
    assert set(params) == {"backbone", "predictor"}
    trained = experiments.load("configs/simulated_faces.py", [])
    assert settings.network_settings(config) == settings.network_settings(trained)
    assert (config["fps"], config["crop_size"]) == (trained.fps, trained.crop_size)
    card = SHIPPED.with_suffix(".md").read_text()
    assert "configs/simulated_faces.py" in card and "Not a medical device" in card


@pytest.mark.slow
@pytest.mark.parametrize("bpm", [54, 84, 126])
def test_it_reads_a_known_pulse(network, tmp_path, bpm):
    sample_video.write_face_video(tmp_path / "face.mp4", seconds=10, bpm=bpm)
    prediction = predict.predict(tmp_path / "face.mp4", model=network)
    assert prediction.heart_rate_bpm == pytest.approx(bpm, abs=1.5)
    assert prediction.confidence >= SKIN_THRESHOLD


@pytest.mark.slow
def test_a_photograph_gives_no_reading(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sample_video, "PULSE_COLOUR", np.zeros(3, np.float32))
    moving = list(sample_video.face_frames(TIMES_S, 84, 0))  # it sways, in a camera's noise
    for name, pictures, codec in (("sways", moving, "libx264"), ("still", moving[:1] * 300, "ffv1")):
        path = tmp_path / f"{name}.mkv"
        sample_video.write_video(path, pictures, TIMES_S, codec=codec)
        assert cli_predict.main([str(path), f"--checkpoint={SHIPPED}"]) == 0
        said = capsys.readouterr().out
        assert "no reading" in said and "bpm" not in said
