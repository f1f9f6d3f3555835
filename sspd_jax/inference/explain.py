"""A page that shows why there is a reading, or none: skin, colours, motion, spectra and all evidence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sspd_jax.errors import ConfigError
from sspd_jax.heart_rate import confidence
from sspd_jax.heart_rate.confidence import Part
from sspd_jax.inference import figures, skin_reading
from sspd_jax.inference.advice import advice
from sspd_jax.inference.prediction import Prediction
from sspd_jax.inference.windows import Segment, Window
from sspd_jax.runtime import storage
from sspd_jax.runtime.text import percent, templates

MOST_WINDOWS = 24  # of each face, whose evidence is shown; files hold all

KINDS = {
    "rhythm": "One clear rhythm",
    "agreement": "Estimators agree",
    "patches": "Parts of the face agree",
    "blood": "The colour of blood",
    "faint": "Enough skin and light",
    "light": "No light that beats",
    "motion": "No motion that beats",
    "time": "The rate holds",
}
WORDS = {
    "rhythm wave": "the wave's power at the rate (log odds)",
    "rhythm fused": "the fused spectrum's power at the rate (log odds)",
    "rhythm rival": "height over the next peak (ln)",
    "agreement share": "share of estimators that find the rate",
    "agreement off": "how far they are from it (÷ 10 bpm)",
    "agreement power": "their power at the rate (log odds)",
    "agreement network": "how far the network is from it (÷ 10 bpm)",
    "agreement learned": "power of its wave at the rate (log odds)",
    "patches agree": "share of patches that find the rate",
    "patches share": "their power at the rate (log odds)",
    "patches step": "their colours beat in step (log odds)",
    "patches green": "their green beats in step (log odds)",
    "patches spread": "how unlike their strengths are",
    "blood cosine": "distance from blood's colour (log10)",
    "blood grey": "nearer to blood than to grey (× 10)",
    "blood red": "red over green, off from blood's",
    "blood blue": "blue over green, off from blood's",
    "blood patches": "the patches' distance from blood (log10)",
    "blood same": "the patches have the skin's colour (log odds)",
    "blood halves": "both halves have the same colour (log odds)",
    "faint colour": "fainter than a pulse can be (log10)",
    "faint area": "pixels of skin (log10)",
    "faint light": "brightness of the skin (log10)",
    "light strong": "stronger than a pulse can be (log10)",
    "light eyes": "eyes and brows beat with the skin",
    "light behind": "what lies behind beats",
    "light behind colour": "what lies behind changes its colour",
    "light sides": "one side beats more (log10)",
    "light steady": "steadier than a heart (log10)",
    "motion size": "the head moves at the rate",
    "motion share": "share of its motion at the rate",
    "motion pose": "the head turns at the rate",
    "motion green": "green that is left without the motion",
    "motion wave": "wave that is left without the motion",
    "motion off": "the rate without the motion is off (÷ 10 bpm)",
    "time halves": "the halves' rates are off (÷ 10 bpm)",
    "time wander": "wanders more than a heart (log10)",
}
"""What each feature of `confidence.skin_features` is, for people."""

ENVIRONMENT = templates("sspd_jax.inference")
ENVIRONMENT.filters.update(exp=math.exp, percent=percent)


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
    """The evidence of one window, as the page shows it.

    Attributes:
      window: what is known of it.
      spectra: picture of the spectra; None where there is not even a rate.
      bias: log odds before any evidence.
      kinds: (name, sum of its log odds, its parts) of each sort of evidence, in the order of `KINDS`.
      log_odds: of the window, their sum with the bias.
    """

    window: Window
    spectra: Markup | None = None
    bias: float = 0.0
    kinds: tuple[tuple[str, float, list[Part]], ...] = ()

    @property
    def log_odds(self) -> float:
        """The bias and all evidence together."""
        return self.bias + math.fsum(total for _, total, _ in self.kinds)


def evidence_of(segment: Segment, window: Window, prediction: Prediction) -> Evidence:
    """Weigh a window's evidence anew, from what was kept of its segment."""
    span = segment.span_of(window.start_s, window.start_s + window.duration_s)
    seen = segment.skin.window(*span)
    weighed = skin_reading.weigh(seen, prediction.method, prediction.settings)
    if isinstance(weighed, str):
        return Evidence(window)
    bias, parts = confidence.parts_of_skin(weighed.evidence)
    totals = confidence.by_kind(parts)
    kinds = tuple((kind, totals[kind], [p for p in parts if p.kind == kind]) for kind in KINDS)
    spectra = _picture(
        figures.draw_spectra(seen, weighed, window),
        f"Spectra, {window.start_s:.1f} to {window.start_s + window.duration_s:.1f} s",
    )
    return Evidence(window, spectra, bias, kinds)


def page(predictions: Sequence[Prediction]) -> str:
    """Explain predictions in an HTML page that needs no other file and asks for none.

    Args:
      predictions: of the region `skin`, and with what they were read from: `predict(…, keep=True)`.

    Raises:
      ConfigError: they were read from a crop, or without `keep`.
    """
    for prediction in predictions:
        if prediction.settings.region != "skin":
            raise ConfigError("only what is read of the skin can be explained; leave --region=crop out")
        if any(segment.skin is None for segment in prediction.segments):
            raise ConfigError(f"{prediction.file}: what its rates were read from was not kept")
    template = ENVIRONMENT.get_template("explain.html")
    title = "Why: " + ", ".join(dict.fromkeys(Path(prediction.file).name for prediction in predictions))
    return template.render(
        title=title, faces=map(_face, predictions), kinds=KINDS, words=WORDS, advice=advice
    )


def write(path: str | Path, predictions: Sequence[Prediction]) -> None:
    """Write `page` into a file.

    Raises:
      ConfigError: see `page`.
      StorageError: it cannot be written.
    """
    storage.write_text(path, page(predictions))


def _face(prediction: Prediction) -> dict[str, Any]:
    snapshot = prediction.snapshot
    return {
        "prediction": prediction,
        "name": Path(prediction.file).name,
        "picture": snapshot and _picture(figures.draw_face(snapshot), "The face, and the skin in it"),
        "courses": [
            _picture(figures.draw_course(segment), "Colours of the skin, pulse wave and motion")
            for segment in prediction.segments
        ],
        "evidence": list(_evidence(prediction)),
        "least": prediction.settings.least_confidence,
        "left_out": max(0, len(prediction.windows) - MOST_WINDOWS),
    }


def _evidence(prediction: Prediction) -> Iterator[Evidence]:
    pairs = [(segment, window) for segment in prediction.segments for window in segment.windows]
    for segment, window in pairs[:MOST_WINDOWS]:
        yield evidence_of(segment, window, prediction)


def _picture(figure: figures.Figure, text: str) -> Markup:
    return Markup(figures.embed(figure, text))
