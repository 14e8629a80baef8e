"""The documentation site: `make docs` builds it strictly into docs/_build/html. Markdown is the source."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from rmft import __version__

project = "rmft"
author = "The rmft authors"
project_copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton", "generated"]
exclude_patterns = ["_build", "_ext"]
html_theme = "furo"
html_title = f"rmft {__version__}"
html_show_sphinx = False
html_copy_source = False

myst_enable_extensions = ["attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True}
copybutton_exclude = ".linenos, .gp, .go"
