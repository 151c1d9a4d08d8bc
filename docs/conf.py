"""How these pages are built: `python -m sphinx -W -b html docs docs/_build/html`.

Every page with code runs it, every time, against the package in this tree. Nothing is fetched: no
fonts, no mathematics from elsewhere, no inventories of other projects.
"""

import os
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS / "_ext")]
# The kernels that run the pages are processes of their own.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(ROOT), str(DOCS / "_ext"), os.environ.get("PYTHONPATH", "")]
)
os.environ["COLUMNS"] = "88"

import llama_ref

project = "llama_ref"
author = "The llama_ref team"
copyright = author  # noqa: A001
version = release = llama_ref.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "docstrings",
    "command_help",
    "golden_cases",
    "mistake_table",
]
exclude_patterns = ["_build", "_ext", "conf.py", "figures", "**/jupyter_execute", "golden/*.py"]
default_role = "py:obj"
suppress_warnings = ["config.cache"]

myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3
myst_update_mathjax = False

nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_render_markdown_format = "myst"  # with tables

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
python_maximum_signature_line_length = 80
python_display_short_literal_types = True

html_theme = "sphinx_book_theme"
html_title = "llama_ref"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "home_page_in_toc": True,
    "navbar_persistent": [],  # the search field is in the side bar
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
}
