"""The report of an evaluation: one self-contained HTML page with its numbers and pictures."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from etils import epath

from sspd_jax.checkpoints import network
from sspd_jax.datasets.dataset import PreparedDataset
from sspd_jax.evaluation import figures, summary
from sspd_jax.evaluation.render import as_html, below, cell, count
from sspd_jax.evaluation.summary import NAMES
from sspd_jax.inference import model
from sspd_jax.method import diagnostics
from sspd_jax.runtime import metrics_log

if TYPE_CHECKING:
    from sspd_jax.evaluation.report import Page
    from sspd_jax.evaluation.scoring import Evaluation, Sample

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222;
  max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.15rem; margin-top: 2.2rem; }} h3 {{ font-size: 1rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .75rem; }}
td, th {{ padding: .2rem .35rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }}
th {{ white-space: normal; vertical-align: bottom; }}
td:first-child, th:first-child {{ text-align: left; }}
tr.reader {{ font-weight: 600; background: #f2f7fb; }}
small {{ color: #555; font-weight: 400; font-size: .65rem; }}
img {{ max-width: 100%; }} .note {{ color: #555; }} .protocol {{ color: #555; font-size: .8rem; }}
.warning {{ border-left: 4px solid #D55E00; padding-left: .6rem; }}
@media print {{ body {{ max-width: none; margin: 0; }} h2 {{ break-after: avoid; }}
  table {{ font-size: .6rem; }} small {{ font-size: .5rem; }} }}
</style></head><body>
{body}
<p class="note">Not a medical device. These numbers hold for these recordings and this protocol.</p>
</body></html>
"""


def render(one: Evaluation, samples: Sequence[Sample], page: Page) -> str:
    """Write the page of an evaluation.

    Args:
      one: rows and scores by one protocol.
      samples: the waves of every tested segment.
      page: title, dataset, network and what else is shown.

    Returns:
      HTML, pictures embedded.
    """
    rows, result = one.rows, one.result
    chosen = result["reader"]
    methods = figures.shown_methods(rows, chosen)
    level = next(iter(result["scores"]))
    warnings = [*page.notes, *_alarms(page), *result["warnings"]]
    parts = [
        f"<h1>{html.escape(page.title)}</h1>",
        f"<p class='note'>{len(result['people'])} people. {html.escape(result['protocol'])}. The reader, "
        "fixed "
        f"before testing: {NAMES.get(chosen, chosen)}. May be compared with: "
        f"{html.escape(result['compare_with'])}. "
        f"{'Nobody here was learned from.' if page.network is not None and not page.notes else ''}</p>",
        *(f"<p class='warning'>{html.escape(text)}</p>" for text in warnings),
        f"<p class='note'>± is one standard error over rows as papers print it; {summary.INTERVAL}.</p>",
    ]
    for name in result["scores"]:
        parts += [f"<h2>Scores {summary.LEVELS[name]}</h2>", as_html(result, name)]
    parts += [
        "<h2>The reader beside the others, on the same windows</h2>",
        _paired_table(result, level),
        *_coverage(result),
        "<h2>Predicted against true heart rate</h2>",
        figures.embed(figures.draw_rates(rows, methods), "predicted against true heart rate"),
        below(result),
        "<h2>Bland–Altman</h2>",
        "<p>Line: mean difference; dashed: limits that hold 95 % of the differences if they are normal.</p>",
        figures.embed(figures.draw_bland_altman(rows, methods), "difference over mean of both rates"),
        below(result),
        "<h2>Heart rate over time</h2>",
        figures.embed(figures.draw_over_time(rows, chosen), "heart rate over time, beside the true one"),
        *_left_out(rows, chosen),
        "<h2>Error by heart rate</h2>",
        figures.embed(figures.draw_by_range(rows, methods), "absolute error by range of the true rate"),
        *_strata(result),
        "<h2>Waves and spectra</h2>",
        "<p>The windows with the smallest, the median and the largest error. A learned wave's sign and "
        "phase mean "
        "nothing: it is drawn turned and moved as it agrees best with the contact wave above it.</p>",
        figures.embed(
            figures.draw_waves(rows, samples, chosen, one.protocol), "waves of best, median and worst window"
        ),
        *_similarities(samples, page),
        *_training(page),
        "<h2>By person</h2>",
        _person_table(result),
    ]
    if page.faces:
        parts += [
            "<h2>Who was tested on</h2>",
            figures.embed(figures.draw_faces(page.dataset, samples), "the first face crop of every segment"),
        ]
    return PAGE.format(title=html.escape(page.title), body="\n".join(parts))


def _paired_table(result: dict[str, Any], level: str) -> str:
    lines = [
        f"<tr><td>{NAMES.get(name, name)}</td><td>{cell(table['difference'], interval=True)}</td>"
        f"<td>{count(table)}</td></tr>"
        for name, table in result["paired"].items()
    ]
    chosen = NAMES.get(result["reader"], result["reader"])
    return (
        f"<p>|error| of {chosen} minus |error| of the other, bpm: below 0 the reader is better. An "
        "interval over "
        "people that holds 0 does not tell them apart.</p>"
        "<table><tr><th>other method</th><th>difference, "
        f"bpm</th><th>{level}s</th></tr>{''.join(lines)}</table>"
        f"{below(result)}"
    )


def _coverage(result: dict[str, Any]) -> list[str]:
    told = result["coverage"]
    if told is None:
        return []
    return [
        "<h2>Where the reader is sure</h2>",
        f"<p>At a confidence of {told['threshold']:g} or more, {told['coverage']:.0%} of "
        f"{told['windows']} windows "
        f"have a reading; of these, MAE {cell(told['MAE'], interval=True)} bpm, RMSE "
        f"{cell(told['RMSE'])} bpm. The "
        "tables above hold all windows. The confidence is that of <code>predict</code>, without the "
        "background, "
        "which crops do not show.</p>",
        below(result),
    ]


def _left_out(rows: Sequence[Any], chosen: str) -> list[str]:
    videos = len({row.recording for row in rows if row.method == chosen})
    if videos <= figures.MOST_VIDEOS:
        return []
    return [f"<p class='note'>The first {figures.MOST_VIDEOS} of {videos} videos; windows.csv has all.</p>"]


def _strata(result: dict[str, Any]) -> list[str]:
    parts = []
    for fact, values in result["strata"].items():
        parts.append(f"<h2>By {html.escape(fact)}</h2>")
        for value, methods in values.items():
            parts += [f"<h3>{html.escape(value)}</h3>", as_html(result, "", methods=methods)]
    if len(result["strata"]) == 1:
        parts.append(
            "<p class='note'>The dataset tells nothing else (light, motion, skin tone) that sorts these "
            "people.</p>"
        )
    return parts


def _similarities(samples: Sequence[Sample], page: Page) -> list[str]:
    if page.network is None:
        return []
    config, params, _ = network.load_network(page.network.name)
    if "ts" not in params:
        return [
            "<p class='note'>The checkpoint has no similarity blocks, so there are no similarity maps.</p>"
        ]
    frames = int(config.get("clip_frames", 300))
    drawn = figures.draw_similarities(page.network, params, page.dataset, samples, frames)
    return [
        "<h2>Similarity maps</h2>",
        "<p>One test clip: how alike its features are at every two moments, at each scale, and the means "
        "of the "
        "diagonals. A pulse shows as stripes, one beat apart.</p>",
        figures.embed(drawn, "similarity maps and waves"),
    ]


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


def _training(page: Page) -> list[str]:
    if page.workdir is None:
        return []
    metrics = metrics_log.read_metrics(page.workdir)
    return ["<h2>Training</h2>", figures.embed(figures.draw_training(metrics), "losses and health")]


def _person_table(result: dict[str, Any]) -> str:
    methods = list(next(iter(result["by_person"].values())))
    head = "".join(f"<th>{NAMES.get(name, name)}</th>" for name in methods)
    lines = []
    for person, table in result["by_person"].items():
        cells = "".join(
            "<td>–</td>" if table[name]["MAE"] is None else f"<td>{table[name]['MAE']:.2f}</td>"
            for name in methods
        )
        lines.append(f"<tr><td>{html.escape(person)}</td>{cells}</tr>")
    return (
        "<p>MAE over everybody's own windows, bpm.</p><div "
        f"class='wide'><table><tr><th>person</th>{head}</tr>"
        f"{''.join(lines)}</table></div>{below(result)}"
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Page:
    """What a report shows beside scores.

    Attributes:
      title: of the page.
      dataset: that the samples were read from.
      network: whose similarity maps are drawn; None for none.
      faces: whether face pictures may be shown.
      workdir: of a training, for its curves; None for none.
      notes: sentences for the top of the page.
      keeps_best: whether the network is that of the training's most trusted epoch, not of its last.
    """

    title: str
    dataset: PreparedDataset
    network: model.RppgModel | None
    faces: bool = True
    workdir: epath.Path | None = None
    notes: tuple[str, ...] = ()
    keeps_best: bool = False
