"""The report of an evaluation: one self-contained HTML page with its numbers and pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from etils import epath
from markupsafe import Markup

from sspd_jax.checkpoints import network
from sspd_jax.datasets.dataset import PreparedDataset
from sspd_jax.evaluation import figures
from sspd_jax.evaluation import render as render_text
from sspd_jax.evaluation.pages import picture, render_page
from sspd_jax.evaluation.scoring import Evaluation, Sample
from sspd_jax.inference import model
from sspd_jax.method import diagnostics
from sspd_jax.runtime import metrics_log


@dataclasses.dataclass(frozen=True, eq=False)
class Page:
    """What a report shows beside scores.

    Attributes:
      title: Title of the page.
      dataset: Dataset that the samples were read from.
      network: Network whose similarity maps are drawn; None for none.
      faces: Whether face pictures may be shown.
      workdir: Directory of a training, for its curves; None for none.
      notes: Sentences for the top of the page.
      keeps_best: Whether the network is that of the training's most trusted epoch, not of its last.
    """

    title: str
    dataset: PreparedDataset
    network: model.RppgModel | None
    faces: bool = True
    workdir: epath.Path | None = None
    notes: tuple[str, ...] = ()
    keeps_best: bool = False


def render(one: Evaluation, samples: Sequence[Sample], page: Page) -> str:
    """Write the page of an evaluation.

    Args:
      one: Rows and scores by one protocol.
      samples: The waves of every tested segment.
      page: Title, dataset, network and what else is shown.

    Returns:
      HTML, pictures embedded.
    """
    rows, result = one.rows, one.result
    primary = result["reader"]
    shown = figures.shown_methods(rows, primary)
    similarities = _similarities(samples, page)
    pictures = {
        "rates": picture(figures.draw_rates(rows, shown), "predicted against true heart rate"),
        "bland_altman": picture(figures.draw_bland_altman(rows, shown), "difference over mean of both rates"),
        "over_time": picture(
            figures.draw_over_time(rows, primary), "heart rate over time, beside the true one"
        ),
        "by_range": picture(figures.draw_by_range(rows, shown), "absolute error by range of the true rate"),
        "waves": picture(
            figures.draw_waves(rows, samples, primary, one.protocol), "waves of best, median and worst window"
        ),
        "similarities": similarities,
        "training": _training(page),
        "faces": page.faces
        and picture(figures.draw_faces(page.dataset, samples), "the first face crop of every segment"),
    }
    return render_page(
        "report.html",
        page.title,
        result=result,
        left_out=[line.removeprefix("left out: ") for line in render_text.left_out(result)],
        warnings=[*page.notes, *_alarms(page), *result["warnings"]],
        nobody_learned_from=page.network is not None and not page.notes,
        main_level=next(iter(result["scores"])),
        methods=list(next(iter(result["by_person"].values()))),
        n_videos=len({row.recording for row in rows if row.method == primary}),
        no_similarities=page.network is not None and not similarities,
        pictures=pictures,
    )


def _similarities(samples: Sequence[Sample], page: Page) -> Markup | None:
    """Draw similarity maps; None without a network, or where it has no similarity blocks."""
    if page.network is None:
        return None
    config, params, _ = network.load_network(page.network.name)
    if "ts" not in params:
        return None
    frames = int(config.get("clip_frames", 300))
    drawn = figures.draw_similarities(page.network, params, page.dataset, samples, frames)
    return picture(drawn, "similarity maps and waves")


def _training(page: Page) -> Markup | None:
    if page.workdir is None:
        return None
    metrics = metrics_log.read_metrics(page.workdir)
    return picture(figures.draw_training(metrics), "losses and health")


def _alarms(page: Page) -> list[str]:
    """Tell what was wrong, without labels, when the training probed the health of what is tested here."""
    metrics = metrics_log.read_metrics(page.workdir) if page.workdir is not None else []
    probed = [values for values in map(diagnostics.probed, metrics) if values]
    if not probed:
        return []
    kept, when = probed[-1], "At the end of the training"
    if page.keeps_best:
        kept, when = max(probed, key=lambda values: values["trust"]), "In the epoch whose network was kept"
    alarm = diagnostics.confounder_warning(kept)
    raised = sum(diagnostics.confounder_warning(values) is not None for values in probed)
    return [f"{when} ({raised} of {len(probed)} epochs raised an alarm): {alarm}"] if alarm else []
