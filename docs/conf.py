"""The documentation: the README and, through AutoAPI, the two modules."""

from pathlib import Path

ROOT = Path(__file__).parents[1]

project = "exam-requests"
copyright = "2023, BRAIN-LINK UG (haftungsbeschränkt)"

extensions = [
    "autoapi.extension",
    "myst_parser",
    "sphinx.ext.napoleon",
    "sphinxcontrib.mermaid",
]
exclude_patterns = ["_build"]
html_theme = "furo"
add_module_names = False
python_use_unqualified_type_names = True
default_role = "py:obj"
nitpick_ignore_regex = [("py:.*", r"(datetime|fastapi|uuid)\..*")]  # documented elsewhere
myst_fence_as_directive = ["mermaid"]
mermaid_height = "auto"

autoapi_dirs = [str(ROOT)]
autoapi_file_patterns = ["exam_requests.py", "exam_models/__init__.py"]
autoapi_options = ["members", "undoc-members"]
autoapi_add_toctree_entry = False
