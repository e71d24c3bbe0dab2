"""How Sphinx makes the site of these pages.

    python -m sphinx -W --keep-going -n docs docs/_build

Reference pages are made from the package as it is imported, so that they cannot fall behind it.
Nothing is fetched, neither by the build nor by who reads the pages.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]
# The notebook runs `clue-jax` of this environment, on the CPU, whatever else there is.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # its warning would be output of the notebook

import clue_jax  # noqa: E402

project = "clue_jax"
author = "The clue_jax authors"
project_copyright = author
version = release = clue_jax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "reference_pages",
    "whole_words",
]
exclude_patterns = ["_build", "_ext"]
nitpicky = True
# Types of others have no page, configs have one of their keys, and data/ is no public surface.
nitpick_ignore_regex = [(r"py:.*", r"(?!clue_jax\.).*|clue_jax\.(config|data)\..*")]

myst_heading_anchors = 4  # the anchors that GitHub gives
myst_enable_extensions = ["deflist"]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
default_role = "code"  # docstrings write names in single backticks
napoleon_numpy_docstring = False
napoleon_use_ivar = True

nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 240
nb_execution_show_tb = True

html_theme = "furo"
html_title = f"clue_jax {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
