"""Configuration of the documentation: Sphinx with MyST, as for the other MM libraries.

The pages of the methods are the README files below ``configs``, so that nothing is written twice.
"""
import os
import re
from pathlib import Path

from sphinx.application import Sphinx

from mmfeatdistill.atomic_files import atomic_write
from mmfeatdistill.version import __version__

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PAGES = HERE / 'methods'

project = 'mmfeatdistill'
version = release = __version__
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode', 'sphinx.ext.mathjax']
source_suffix = {'.md': 'markdown'}
exclude_patterns = ['_build']
html_theme = 'furo'
html_title = f'mmfeatdistill {__version__}'
myst_heading_anchors = 3
autodoc_member_order = 'bysource'
autodoc_typehints = 'none'  # the docstrings have them, in words
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def method_page(readme: Path) -> str:
    """The page of a method, from the README of its configs.

    Args:
        readme (Path): ``configs/<method>/README.md``.

    Returns:
        str: The same, with links as seen from :data:`PAGES`.
    """
    def seen_from_pages(match: re.Match) -> str:
        path, anchor = match[1].partition('#')[::2]
        target = (readme.parent / path).resolve()
        if target.name == 'README.md':
            target = HERE / 'index.md' if target.parent == ROOT else PAGES / f'{target.parent.name}.md'
        return f']({os.path.relpath(target, PAGES)}{"#" + anchor if anchor else ""})'

    return re.sub(r'\]\((?![a-z]+:|#)([^)\s]+)\)', seen_from_pages, readme.read_text())


def write_method_pages() -> None:
    """Writes the page of every method that has changed, and removes those of methods that are gone."""
    pages = {PAGES / f'{readme.parent.name}.md': method_page(readme) for readme in ROOT.glob('configs/*/README.md')}
    for page in set(PAGES.glob('*.md')) - set(pages):
        page.unlink()
    for page, text in pages.items():
        if not page.is_file() or page.read_text() != text:
            atomic_write(page, text)


def setup(app: Sphinx) -> None:
    """Has the pages of the methods written before the sources are read.

    Args:
        app (Sphinx): The builder's application.
    """
    app.connect('builder-inited', lambda _: write_method_pages())
