"""Docstrings as Markdown: roles, links and tables of reStructuredText become what the site's pages are written in.

An extension of griffe, which reads the sources for mkdocstrings.
"""

from __future__ import annotations

import re

import griffe

ROLE = re.compile(r":(?:class|func|meth|data|attr|mod|obj|exc):`~?([^`]+)`")
LINK = re.compile(r"`([^`<]+?)\s*<(https?://[^`>\s]+)>`_")
EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)  # griffe reads code under the plural only
TABLE = re.compile(r"(^ *=+ +=+ *\n.*^ *=+ +=+ *$)", re.MULTILINE | re.DOTALL)


class Markdown(griffe.Extension):
    """Rewrites every docstring once, before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: object) -> None:
        if obj.docstring is not None:
            text = LINK.sub(lambda link: f"[{' '.join(link[1].split())}]({link[2]})", obj.docstring.value)
            text = ROLE.sub(lambda role: f"`{role[1]}`", text)
            text = EXAMPLE.sub("Examples:", text)
            obj.docstring.value = TABLE.sub(r"```text\n\1\n```", text)
