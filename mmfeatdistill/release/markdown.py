"""Tables of the pages that are written here."""
from collections.abc import Iterable, Sequence


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown.

    Examples:
        >>> print(markdown_table(['config', 'mIoU'], [['ofd.py', '26.2']]))
        | config | mIoU |
        | --- | --- |
        | ofd.py | 26.2 |
    """
    return '\n'.join(f'| {" | ".join(line)} |' for line in (columns, ['---'] * len(columns), *rows))
