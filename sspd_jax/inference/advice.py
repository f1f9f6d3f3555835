"""What would help where there is no reading: a sentence for each reason."""

from __future__ import annotations

from sspd_jax.heart_rate import confidence
from sspd_jax.inference import windows

LIGHT = (
    "film by steady daylight or lamps that do not flicker, no screen near, exposure and white balance locked"
)
NEARER = "come nearer or film larger, with more light and a higher bitrate, and no filter that smooths skin"
STILL = "rest the head and the camera on something firm, and hold still"
OF_SKIN = {
    "rhythm": "hold still in even light from the front, and film 20 s or more",
    "agreement": "film with more light from the front and a higher bitrate, and hold still",
    "patches": "light the whole face evenly, and keep hair, hands and shadows off it",
    "blood": LIGHT,
    "faint": NEARER,
    "motion": STILL,
    "light": LIGHT,
    "time": "sit quietly and film 20 s or more: the rate has to hold for ten of them",
}
OF_CROP = {
    "wave": OF_SKIN["rhythm"],
    "colour": NEARER,
    "cells": OF_SKIN["patches"],
    "blood": LIGHT,
    "behind": LIGHT,
}
OF_REASON = {
    **{why: OF_CROP[kind] for kind, why in confidence.REASONS.items()},
    **{why: OF_SKIN[kind] for kind, why in confidence.SKIN_REASONS.items()},
    windows.FLAT: "check that the video moves and shows skin: a still picture has no pulse",
    windows.NO_COLOUR: "film in colour",
    windows.OUT_OF_VIEW: "keep the face in view, from the front",
    windows.NO_CLOCK: "give the frame rate with --fps, or the file that the camera wrote",
    "the wave ends before the window does": "film some seconds longer",
    "at ": "film at 25 frames/s or more",
}


def advice(why: str) -> str:
    """Say what would help against a reason that `Window.why` gives; '' where nothing is known.

    Example:
      >>> advice("the head moves at this rate, and 6.0 s are too short to be sure: take 10 s or more")
      'rest the head and the camera on something firm, and hold still'
    """
    known = (reason for reason in OF_REASON if why.startswith(reason))
    return OF_REASON.get(max(known, key=len, default=""), "")
