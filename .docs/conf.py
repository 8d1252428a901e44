"""The API reference, from the docstrings: ``python -m sphinx -W .docs runs/docs``."""

import importlib.metadata
import inspect
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

project = "convnd and dynunet"
release = importlib.metadata.version("dynunet")
extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = project
html_math_renderer = "mathml"
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!(convnd|dynunet)\.).*|.*\._.*")
]  # other packages' names, and private ones
napoleon_use_ivar = True  # else attributes are there twice
autosummary_generate = True
templates_path = ["templates"]
exclude_patterns = ["templates"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False
add_module_names = False


def constructor(app: Any, what: str, name: str, cls: Any, options: Any, signature: str, returns: str) -> Any:
    """The arguments of ``__init__``, where a base class has a ``__new__`` that takes any."""
    if what != "class" or not (signature or "").startswith("(*args"):
        return None
    given = inspect.signature(cls.__init__)
    return str(
        given.replace(parameters=list(given.parameters.values())[1:], return_annotation=given.empty)
    ), returns


def setup(app: Any) -> None:
    """Formulas as MathML, which browsers draw themselves: the pages need no network."""
    app.connect("autodoc-process-signature", constructor)

    def inline(page: Any, node: nodes.math) -> None:
        page.body.append(convert(node.astext()))
        raise nodes.SkipNode

    def display(page: Any, node: nodes.math_block) -> None:
        page.body.append(convert(node.astext(), display="block"))
        raise nodes.SkipNode

    app.add_html_math_renderer("mathml", (inline, None), (display, None))
