"""How the site is built: `make docs`, without network, strictly. Pages are Markdown; `_ext/generated.py` fills in the rest."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from phosphene import __version__

project = "phosphene"
author = "The phosphene developers"
release = version = __version__

extensions = ["myst_parser", "generated"]
exclude_patterns = ["_ext", "examples"]
highlight_language = "none"  # blocks that name no language are output or drawings
nitpicky = True  # a link that leads nowhere is an error

myst_heading_anchors = 4
myst_links_external_new_tab = False

html_theme = "furo"
html_title = "phosphene"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
