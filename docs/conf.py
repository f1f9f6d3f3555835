"""How `make docs` builds these pages: Sphinx, MyST for Markdown, autodoc for the docstrings.

Sphinx, because JAX, Flax and Optax document themselves with it, because it reads Google-style docstrings and
checks every cross-reference, and because it is maintained.
"""

import configparser
import os
import re
from pathlib import Path

import sspd_jax

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # nothing is computed here

ROOT = Path(__file__).parents[1]
_setup = configparser.ConfigParser(interpolation=None)
_setup.read(ROOT / "setup.cfg")
ADDRESS = _setup["metadata"]["url"]

project = "sspd_jax"
author = "the sspd_jax contributors"
copyright = author
version = release = sspd_jax.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"sspd_jax {version}"

default_role = "code"  # in docstrings `name` is code
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 100
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar = True  # a named tuple's fields would be listed twice
# A class of one name in two rooms (Settings): annotations name it without the room, and are not linked.
suppress_warnings = ["ref.python"]


def _as_markdown(app, docname, source):
    """Let links to files beside docs/ lead to the repository, and leave out a page that is not there."""
    if "/" in docname:  # its ../ is docs/
        return
    source[0] = re.sub(r"\]\(\.\./([^)]+)\)", rf"]({ADDRESS}/blob/main/\1)", source[0])
    if docname == "index" and not (ROOT / "docs" / "robust.md").exists():
        source[0] = source[0].replace("\nrobust\n", "\n")


def _as_rst(app, what, name, obj, options, lines):
    """Let docstrings be read as they are written: |x| is an absolute value, an indented block is code."""
    for i, line in enumerate(lines):
        parts = line.split("`")
        lines[i] = "`".join(p.replace("|", r"\|") if n % 2 == 0 else p for n, p in enumerate(parts))
    if what == "module":
        begins = [
            i for i, line in enumerate(lines) if line.startswith("    ") and (i == 0 or not lines[i - 1])
        ]
        for i in reversed(begins):
            if i == 0 or not any(line and line.startswith(" ") for line in lines[max(0, i - 2) : i - 1]):
                lines[i:i] = [".. code-block:: text", ""]


def setup(app):
    """Connect what Sphinx calls."""
    app.connect("autodoc-process-docstring", _as_rst)
    app.connect("source-read", _as_markdown)
