"""HTML pages from the templates beside this file; everything that is put into them is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from sspd_jax.evaluation import figures
from sspd_jax.evaluation.render import cell, count
from sspd_jax.evaluation.summary import HEADS, INTERVAL, LEVELS, NAMES
from sspd_jax.inference.figures import embed
from sspd_jax.runtime.text import templates

ENVIRONMENT = templates("sspd_jax.evaluation")
ENVIRONMENT.globals.update(HEADS=HEADS, INTERVAL=INTERVAL, LEVELS=LEVELS, MOST_VIDEOS=figures.MOST_VIDEOS)


def _shown_metrics(methods: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the metrics that at least one method has a number for."""
    return [m for m in HEADS if any(t.get(m) and t[m][0] is not None for t in methods.values())]


ENVIRONMENT.filters.update(
    cell=cell,
    count_rows=count,
    method_name=lambda name: NAMES.get(name, name),
    shown_metrics=_shown_metrics,
)


def picture(figure: Any, text: str) -> Markup:
    """Embed a figure in a page.

    Args:
      figure: Figure of matplotlib.
      text: What it shows, for those who do not see it.
    """
    return Markup(embed(figure, text))


def render_page(template: str, title: str, **context: Any) -> str:
    """Fill a template.

    Args:
      template: Name of the template's file.
      title: Title of the page.
      **context: What the template asks for; a name that is missing raises.

    Returns:
      The page, self-contained.
    """
    return ENVIRONMENT.get_template(template).render(title=title, **context)
