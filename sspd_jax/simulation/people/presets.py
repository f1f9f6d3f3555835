"""Kinds of footage as people have it, each with a card. Frozen: a change gets a new `VERSION`."""

from __future__ import annotations

import dataclasses

from sspd_jax.simulation.people.camera import Camera
from sspd_jax.simulation.people.film import Scene
from sspd_jax.simulation.people.head_motion import Habits
from sspd_jax.simulation.people.lights import LightSettings

VERSION = 2  # of all that decides what is filmed: raise it whenever the same numbers give other pictures
HEART_RATES_BPM = (42.0, 178.0)  # over which people's rates are spread


@dataclasses.dataclass(frozen=True)
class Preset:
    """A kind of footage.

    Attributes:
      says: What it is like, in a sentence.
      hard: How hard it is to read, in a few words.
      whom: For whom it stands.
      scene: Who moves how, before what, in which light, filmed by what.
      fps: Frames a second, Hz.
      codec: Name in `footage_recordings.CODECS`.
      kbps: Bit rate, drawn between the two, kbit/s, of a picture of 640×480; others in proportion.
      pictures_s: Length of a group of pictures, drawn between the two, s.
      late: Standard deviation of the frames' times, of the time between them.
      dropped: Share of the frames that are lost.
    """

    says: str
    hard: str
    whom: str
    scene: Scene
    fps: float = 30.0
    codec: str = "h264"
    kbps: tuple[float, float] = (1500.0, 4000.0)
    pictures_s: tuple[float, float] = (2.0, 8.0)
    late: float = 0.0
    dropped: float = 0.0


_WEBCAM = Scene(
    habits=Habits(sway_deg=0.5, sway_dm=0.012, talk=0.03, rhythm_deg=0.03, rhythm_dm=0.001),
    light=LightSettings(level=0.5, key=0.5, warmth=0.15, slow=0.003, in_band=0.0004, screen=0.01),
    camera=Camera(electrons=20_000, sharpening=0.5, denoise=0.2, exposure_step=0.01, white_wander=0.003),
)
_PHONE = Scene(
    size=(720, 1280),
    face=(0.22, 0.34),
    habits=Habits(sway_deg=0.7, sway_dm=0.02, talk=0.06, rhythm_deg=0.06, rhythm_dm=0.002, shake_px=0.8),
    light=LightSettings(level=0.5, key=0.6, warmth=0.2, slow=0.01, in_band=0.0008, back=0.3),
    camera=Camera(electrons=11_000, sharpening=0.8, denoise=0.35, exposure_step=0.015, white_wander=0.004),
)

PRESETS: dict[str, Preset] = {
    "studio": Preset(
        says="A person sits still in soft, steady light before a plain wall, filmed by a good camera.",
        hard="easy",
        whom="laboratories",
        scene=Scene(
            habits=Habits(sway_deg=0.3, sway_dm=0.006),
            light=LightSettings(level=0.9, key=0.25, warmth=0.1, slow=0.002),
            camera=Camera(electrons=50_000, read_noise=5, sharpening=0.2),
            busy=0.1,
        ),
        kbps=(4000, 8000),
    ),
    "webcam": Preset(
        says="A person at a computer moves a little, before a webcam whose exposure corrects itself.",
        hard="middling",
        whom="UBFC-rPPG, PURE, COHFACE, most desks",
        scene=_WEBCAM,
        kbps=(2500, 6000),
    ),
    "phone": Preset(
        says="A person holds a telephone upright, some before a window; the picture trembles.",
        hard="middling to hard",
        whom="MMPD, selfies",
        scene=_PHONE,
        codec="hevc",
        kbps=(1800, 5500),
        pictures_s=(1.0, 2.0),
    ),
    "browser": Preset(
        says="A webcam recorded by a browser: VP8, frames that are late or lost.",
        hard="middling",
        whom="studies by web page",
        scene=_WEBCAM,
        codec="vp8",
        kbps=(700, 2500),
        pictures_s=(3.0, 10.0),
        late=0.12,
        dropped=0.02,
    ),
    "talking": Preset(
        says="A person talks and moves as real talking heads do.",
        hard="hard",
        whom="calls, interviews",
        scene=dataclasses.replace(
            _WEBCAM,
            habits=Habits(sway_deg=0.5, sway_dm=0.02, talk=0.7, rhythm_deg=0.07, rhythm_dm=0.003),
            light=dataclasses.replace(_WEBCAM.light, key=0.3),
        ),
        kbps=(800, 3000),
    ),
    "walking": Preset(
        says="A person walks with a telephone: steps, a background that moves, light that changes.",
        hard="very hard",
        whom="MMPD's walking",
        scene=dataclasses.replace(
            _PHONE,
            size=(540, 960),
            habits=Habits(sway_deg=1.5, sway_dm=0.06, talk=0.3, steps_dm=0.10, shake_px=2.0),
            light=LightSettings(level=0.6, key=0.6, slow=0.04, in_band=0.004, steps=0.02),
        ),
        kbps=(1800, 5500),
        pictures_s=(1.0, 2.0),
    ),
    "dark": Preset(
        says="A dark room: much noise, which the camera smooths away together with what else is small.",
        hard="very hard",
        whom="evenings, MMPD's low light",
        scene=dataclasses.replace(
            _WEBCAM,
            light=LightSettings(level=0.03, key=0.5, warmth=1.0, slow=0.006, screen=0.04),
            camera=Camera(
                electrons=15_000,
                sharpening=0.2,
                denoise=0.6,
                shutter=0.9,
                exposure_step=0.02,
                white_wander=0.006,
                least_mean=0.5,
            ),
        ),
        fps=20.0,
        kbps=(600, 2000),
    ),
    "screen_light": Preset(
        says="In a dim room a screen lights the face alone, in colours that change; the person may chew.",
        hard="hard",
        whom="films and games at night",
        scene=dataclasses.replace(
            _WEBCAM,
            habits=dataclasses.replace(_WEBCAM.habits, chew=0.25),
            light=LightSettings(level=0.12, key=0.4, slow=0.006, screen=0.2),
            camera=dataclasses.replace(_WEBCAM.camera, electrons=15_000, denoise=0.35, shutter=0.9),
        ),
    ),
    "lamp": Preset(
        says="A coloured lamp at one side beats at some other rate; the lamps hum with the mains.",
        hard="hard",
        whom="living rooms with coloured lamps",
        scene=dataclasses.replace(
            _WEBCAM, light=LightSettings(level=0.45, key=0.3, slow=0.006, lamp=0.006, mains=0.06)
        ),
    ),
}
"""Name → preset."""
