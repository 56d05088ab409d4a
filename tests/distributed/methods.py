"""The digit configs of all methods, found on disk."""
import re

from tests.helpers.runs import CONFIGS

_BY_COST = ('_resnet18', '_faster-rcnn', '_pspnet', '_mask-rcnn')
_HERE = [f'../tests/distributed/{name}.py' for name in (
    'several_objectives', 'transformer_detector', 'weighted', 'cross_head', 'shared_queries')]
"""What no shipped config of the digits has."""


def _cost(path: str) -> int:
    return next(cost for cost, task in enumerate(_BY_COST) if task in path)


def _parts(path: str) -> set[str]:
    """The objectives, connectors and losses that a config names itself."""
    return set(re.findall(r"\btype='(\w+)'", (CONFIGS / path).read_text()))


def _with_every_part(paths: list[str]) -> list[str]:
    """All classifiers, and of the other tasks those that have a part which nothing before has."""
    chosen: list[str] = []
    seen: set[str] = set()
    for path in paths:
        if _cost(path) == 0 or _parts(path) - seen:
            chosen.append(path)
            seen |= _parts(path)
    return chosen


_ALL = sorted((str(path.relative_to(CONFIGS)) for path in CONFIGS.glob('*/*_digits.py')
               if path.parent.name != 'digits'), key=lambda path: (_cost(path), path))
WITH_EVERY_PART = [*_with_every_part(_ALL), *_HERE]
OTHERS = [path for path in _ALL if path not in WITH_EVERY_PART]
