"""What a probe of run health measures: hand values, and readers whose faults are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sspd_jax.method import diagnostics

pytestmark = pytest.mark.usefixtures("quick_compilation")

FPS = 15.0
BEATS_HZ = (0.9, 1.4, 2.1)


def test_repetition_finds_one_wave_at_any_lag_and_sign():
    t = np.arange(200) / 20
    wave = np.sin(2 * np.pi * 1.3 * t) + 0.4 * np.sin(2 * np.pi * 2.6 * t)
    assert diagnostics.repetition(np.stack([wave, -np.roll(wave, 7), np.roll(wave, 31)])) == pytest.approx(
        1, 1e-5
    )
    apart = np.stack([np.sin(2 * np.pi * f * t) for f in (0.8, 1.3, 2.1)])
    assert diagnostics.repetition(apart) == pytest.approx(0, abs=1e-5)
    assert diagnostics.repetition(apart[:1]) == 0


def test_correlation_and_spectral_likeness_by_hand():
    t = np.arange(200) / 20
    sine, late, other = (np.sin(2 * np.pi * f * t + p)[None] for f, p in ((1, 0), (1, np.pi / 3), (2, 0)))
    assert diagnostics.correlation(sine, 3 * sine + 5) == pytest.approx(1, abs=1e-6)
    assert diagnostics.correlation(sine, late) == pytest.approx(0.5, abs=1e-5)
    assert diagnostics.correlation(sine, np.ones_like(sine)) == 0
    assert diagnostics.spectral_likeness(sine, -late, 20) == pytest.approx(1, abs=1e-5)
    assert diagnostics.spectral_likeness(sine, other, 20) == pytest.approx(0, abs=1e-5)


def faces():
    """Three people whose skin fills the picture, in light that flickers at 2.7 Hz: [3, 97, 20, 20, 3]."""
    t = np.arange(97) / FPS
    colour = np.array([0.4, 1.0, 0.7])
    pulses = np.stack([np.sin(2 * np.pi * f * t) for f in BEATS_HZ])
    gain = 1 + 0.006 * pulses[..., None] * colour + 0.004 * np.sin(2 * np.pi * 2.7 * t)[:, None]
    skin = np.array([180.0, 130.0, 100.0]) + np.random.default_rng(0).normal(0, 5, (3, 1, 20, 20, 1))
    return (skin * gain[:, :, None, None]).astype(np.float32)


def chroma(video):
    """Reads the pulse and no light: colours against each other."""
    red, green, blue = (video[..., i].mean(axis=(2, 3)) / m for i, m in enumerate((180, 130, 100)))
    return green - (red + blue) / 2


def brightness(video):
    """Reads light and pulse alike."""
    return video.mean(axis=(2, 3, 4))


@functools.cache
def probing(read):
    """One compiled program for each reader."""
    return jax.jit(lambda clips: diagnostics.probe(read, clips, 16, FPS, jax.random.key(0)))


def probed(read, clips):
    return {name: float(value) for name, value in probing(read)(clips).items()}


def one_answer(video):
    """Reads the same to everybody."""
    wave = np.sin(2 * np.pi * 1.5 * np.arange(96) / FPS).astype(np.float32)
    return jnp.broadcast_to(wave, (len(video), 96))


def test_a_probe_tells_a_pulse_from_light_and_from_one_answer():
    pulse, light, one = (probed(read, faces()) for read in (chroma, brightness, one_answer))
    assert set(pulse) == set(light) == set(one)
    for measures in (pulse, light, one):
        assert all(np.isfinite(value) for value in measures.values())
    assert pulse["light_moves"] < 0.01 < 0.1 < light["light_moves"]
    assert pulse["pos_agrees"] > 0.95
    assert light["green_agrees"] > 0.6 > 0.4 > light["pos_agrees"]
    assert light["surround_agrees"] > 0.6
    assert pulse["regions_agree"] > 0.95
    assert pulse["views_agree"] > 0.95
    assert one["repeated"] == pytest.approx(1, abs=1e-5)
    assert pulse["repeated"] < 0.6
    assert one["alike"] == pytest.approx(1, abs=1e-5)


def test_trust_grows_with_what_pos_finds_and_falls_with_repetition():
    pulse, one = probed(chroma, faces()), probed(one_answer, faces())
    for found in (pulse, one):
        assert found["trust"] == pytest.approx(found["steady_pos_agrees"] - found["repeated"], abs=1e-6)
    assert pulse["trust"] > 0.3 > -0.3 > one["trust"]


@pytest.mark.parametrize(
    ("other", "agrees"),
    [(chroma, 1), (lambda video: -chroma(video), -1), (lambda video: 0 * chroma(video), 0)],
)
def test_networks_agree_as_far_as_their_waves_correlate(other, agrees):
    def both(clips):
        return diagnostics.probe(chroma, clips, 16, FPS, jax.random.key(0), online=other)["networks_agree"]

    assert jax.jit(both)(faces()) == pytest.approx(agrees, abs=1e-5)
    assert "networks_agree" not in probed(chroma, faces())


def test_health_of_waves_by_hand():
    """Of three clips two beat at 1.5 Hz and one at the band's first frequency, all on bins of 30 s."""
    t = np.arange(300) / 10
    waves = np.stack([np.sin(2 * np.pi * hz * t) for hz in (1.5, 1.5, 0.5)]).astype(np.float32)
    waves[0] += np.sqrt(1 / 3) * np.sin(2 * np.pi * 2.5 * t).astype(np.float32)  # a quarter of its power
    waves *= np.array([[0.2], [1.0], [3.0]], np.float32)  # how strong a wave is says nothing
    health = jax.jit(diagnostics.wave_health, static_argnums=1)
    found = {name: float(value) for name, value in health(waves, 10.0).items()}
    assert found["concentration"] == pytest.approx((0.75 + 1 + 1) / 3, abs=1e-4)
    assert found["at_edge"] == pytest.approx(1 / 3, abs=1e-6)
    alike = 0.75 / np.hypot(0.75, 0.25)  # cosine of (3/4, 1/4) with (1, 0); the third shares nothing
    assert found["alike"] == pytest.approx(alike / 3, abs=1e-4)
    score = (1 - found["alike"]) * found["concentration"] * (1 - 1 / 3)
    assert found["score"] == pytest.approx(score, abs=1e-5)
    for hz, edge in ((0.5, 1), (3.0, 1), (0.6, 0), (2.9, 0)):
        one = np.sin(2 * np.pi * hz * t + 0.3).astype(np.float32)[None]
        alone = health(one, 10.0)
        assert alone["at_edge"] == edge and alone["alike"] == 0
        assert alone["score"] == pytest.approx(1 - edge, abs=1e-3)


def test_a_still_video_has_a_finite_probe():
    measures = probed(brightness, np.full_like(faces(), 90))
    assert all(np.isfinite(value) for value in measures.values())


def test_an_alarm_is_a_sentence_with_what_to_do():
    good = {"repeated": 0.4, "steady_pos_agrees": 0.9, "trust": 0.5}
    assert diagnostics.confounder_warning(good) is None
    elsewhere = diagnostics.confounder_warning({**good, "steady_pos_agrees": 0.6, "trust": 0.2})
    assert "by 0.60, and each other by 0.40" in elsewhere
    assert "use the robust variant" in elsewhere
    assert "one wave (0.99" in diagnostics.confounder_warning({**good, "repeated": 0.99, "trust": -0.09})


@pytest.mark.parametrize(
    ("trust", "repeated", "says"),
    [
        (0.4, 0.2, None),
        (0.399, 0.2, "resemble what POS finds"),
        (0.0, 0.949, "resemble"),
        (0.0, 0.951, "one wave"),
    ],
)
def test_the_alarm_is_raised_below_its_threshold_and_not_on_it(trust, repeated, says):
    found = {"repeated": repeated, "steady_pos_agrees": trust + repeated, "trust": trust}
    said = diagnostics.confounder_warning(found)
    assert said is None if says is None else says in said


@pytest.mark.parametrize(
    ("health", "says"),
    [
        ({"alike": 0.95, "at_edge": 0.5}, None),
        ({"alike": 0.951, "at_edge": 0.0}, "0.95 alike"),
        ({"alike": 0.0, "at_edge": 0.51}, "51% of the waves"),
    ],
)
def test_an_epoch_is_warned_of_beyond_its_thresholds_and_not_on_them(health, says):
    said = diagnostics.collapse_warning(health)
    assert said is None if says is None else says in said
    one_person = diagnostics.collapse_warning(health, one_person=True)
    assert one_person == (None if health["alike"] > 0.95 else said)


def test_clips_of_one_person_may_beat_alike():
    t = np.arange(200) / 20
    wave = np.sin(2 * np.pi * np.array([1.3, 1.3, 2.0])[:, None] * t)
    assert diagnostics.repetition(wave[:2]) == pytest.approx(1, abs=1e-5)
    assert diagnostics.repetition(wave[:2], ["ann", "ann"]) == 0
    # Of three pairs, one is of the same person; the other two share nothing.
    assert diagnostics.repetition(wave, ["ann", "ann", "bob"]) == pytest.approx(0, abs=1e-5)
    assert diagnostics.repetition(wave, ["ann", "bob", "bob"]) == pytest.approx(0.5, abs=1e-3)


def test_nothing_probed_raises_no_alarm():
    assert diagnostics.probed({"step": 3, "health/score": 0.5}) == {}
    assert diagnostics.confounder_warning({}) is None


def test_what_an_older_run_logged_raises_no_alarm_by_what_it_lacks():
    assert diagnostics.confounder_warning({"repeated": 0.4, "pos_agrees": 0.1}) is None
