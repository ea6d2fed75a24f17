"""The documentation: the README, pages beside it and, through AutoAPI, the two modules."""

from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

project = "exam-requests"
copyright = "2023, BRAIN-LINK UG (haftungsbeschränkt)"

extensions = ["autoapi.extension", "myst_parser", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_theme_options = {"light_css_variables": {"code-font-size": "74%"}}  # 99 columns, uncut
add_module_names = False
python_use_unqualified_type_names = True
default_role = "py:obj"
myst_heading_anchors = 3
nitpick_ignore_regex = [("py:.*", r"(datetime|fastapi|uuid)\..*")]  # documented elsewhere

autoapi_dirs = [str(ROOT)]
autoapi_file_patterns = ["exam_requests.py", "__init__.py"]
autoapi_ignore = [
    str(path) for path in ROOT.iterdir() if path.is_dir() and path.name != "exam_models"
]
autoapi_options = ["members", "undoc-members"]
autoapi_add_toctree_entry = False


def setup(app: Any) -> None:
    """Let references to ScanHub's models, and to the README, lead to what is here."""
    app.connect("missing-reference", bundled_model)
    app.connect("source-read", lead_to_the_index)


def lead_to_the_index(app: Any, page: str, source: list[str]) -> None:
    """Let a link to the README lead to the index, which includes it."""
    source[0] = source[0].replace("](../README.md#", "](index.md#")


def bundled_model(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Look for a name that was not found among the bundled models."""
    name = node["reftarget"].removeprefix("scanhub_libraries.models.")
    return env.domains["py"].resolve_xref(
        env, node["refdoc"], app.builder, "obj", f"exam_models.{name}", node, contnode
    )
