"""Why a checkpoint does not fit a network."""
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

from mmfeatdistill.checkpoints.load import LoadReport

_ADAPTER = re.compile(r'(^|[._])lora([._]|_?[AB]\b)', re.I)

_DEPTH = 4
"""Parts of a name that a prefix may have."""


class Renaming(NamedTuple):
    """Another beginning of the names of a checkpoint.

    Attributes:
        old (str): What they begin with in the file; may be empty.
        new (str): What they would begin with in the network; may be empty.
        found (int): How many missing tensors would then be found.
    """

    old: str
    new: str
    found: int


def find_renaming(missing: Sequence[str], unexpected: Sequence[str]) -> Optional[Renaming]:
    """The prefix by which the names of a checkpoint differ from those of a network.

    Args:
        missing (Sequence[str]): Names of the network that the file lacks.
        unexpected (Sequence[str]): Names of the file that the network lacks.

    Returns:
        Renaming: The one that finds most; None where none finds half of what is missing.

    Examples:
        >>> find_renaming(['backbone.conv1.weight', 'backbone.conv1.bias'], ['conv1.weight', 'conv1.bias'])
        Renaming(old='', new='backbone.', found=2)
        >>> find_renaming(['neck.a', 'head.b'], ['student.neck.a', 'student.head.b', 'teacher.x'])
        Renaming(old='student.', new='', found=2)
    """
    return next(iter(find_renamings(missing, unexpected)), None)


def find_renamings(missing: Sequence[str], unexpected: Sequence[str]) -> list[Renaming]:
    """The prefixes by which the names of a checkpoint may differ, where it holds several networks.

    Args:
        missing (Sequence[str]): Names of the network that the file lacks.
        unexpected (Sequence[str]): Names of the file that the network lacks.

    Returns:
        list[Renaming]: Those that find most, and begin with different words in the file; none where none finds half of
        what is missing.

    Examples:
        >>> found = find_renamings(['neck.a', 'head.b'], ['student.neck.a', 'student.head.b', 'teacher.neck.a',
        ...                                               'teacher.head.b'])
        >>> [renaming.old for renaming in found]
        ['student.', 'teacher.']
    """
    wanted = defaultdict(list)
    for name in missing:
        for prefix, rest in _splits(name):
            wanted[rest].append(prefix)
    found = Counter((old, new) for name in unexpected for old, rest in _splits(name) for new in wanted[rest])
    most = max(found.values(), default=0)
    if not most or 2 * most < len(missing):
        return []
    # Of prefixes that find as much the shortest: 'model.' and '' rather than 'model.backbone.' and 'backbone.'.
    shortest = sorted((pair for pair, count in found.items() if count == most), key=lambda pair: sum(map(len, pair)))
    by_word: dict[str, tuple[str, str]] = {}
    for old, new in shortest:
        by_word.setdefault(old.partition('.')[0], (old, new))
    has_own = [pair for word, pair in by_word.items() if word] or list(by_word.values())
    first = shortest[0]
    return [Renaming(old, new, most) for old, new in sorted([first] if not first[0] else has_own)]


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """Every way to part a name in a short prefix and a rest."""
    parts = name.split('.')
    for depth in range(min(_DEPTH, len(parts) - 1) + 1):
        yield ''.join(f'{part}.' for part in parts[:depth]), '.'.join(parts[depth:])


def explain_load(report: LoadReport) -> list[str]:
    """What people can conclude from a checkpoint that does not fit.

    Args:
        report (LoadReport): How it fitted.

    Returns:
        list[str]: Sentences; none where everything fits.

    Examples:
        >>> explain_load(LoadReport('a.pth', 0, (), (), ('fc.weight: file [10, 8], model [10, 64]',)))
        ['Most shapes differ: the file is of a network of another width (fc.weight: file [10, 8], ...']
    """
    sentences = []
    if report.mismatched:
        sentences.append(_explain_shapes(report))
    renamings = find_renamings(report.missing, report.unexpected) if report.missing else []
    if renamings:
        if len(renamings) > 1:
            several = ', '.join(repr(renaming.old) for renaming in renamings)
            sentences.append(f'The file holds several networks that fit, under {several}; choose one.')
        sentences += _explain_renaming(report, renamings[0])
    elif report.missing and report.unexpected:
        sentences.append('The names differ by more than a prefix: the file is of another architecture, or was written '
                         'by another library.')
    elif report.missing:
        sentences.append(f'The file lacks a part of the network, such as {report.missing[0]!r}.')
    if report.complete and report.inside:
        sentences.append(
            f'{len(report.inside)} tensors of the file belong into modules of this network, which has none such '
            f'({report.inside[0]}): the file is of a network that computes something else there, such as one with '
            'deformable convolutions or more blocks. Give the config that it was trained with.')
    if any(_ADAPTER.search(name) for name in report.unexpected):
        sentences.append('The file holds low-rank adapters (LoRA), which are no weights of this network: merge them '
                         'into the weights that they adapt, and save those.')
    return sentences


def _explain_shapes(report: LoadReport) -> str:
    example = report.mismatched[0]
    if all(map(_is_transposed, report.mismatched)):
        return (f'Dimensions come in another order ({example}), as TensorFlow, JAX and PaddlePaddle keep them. '
                'Transpose all weights, also those whose sides are equal.')
    if 2 * len(report.mismatched) >= report.matched + len(report.mismatched):
        return (f'Most shapes differ: the file is of a network of another width ({example}). Give the config that it '
                'was trained with.')
    last = {re.sub(r'\.(weight|bias).*', '', shape) for shape in report.mismatched}
    return (f'Only {", ".join(sorted(last)[:3])} {"differs" if len(last) == 1 else "differ"} in shape ({example}): the '
            'file may be of the same network for another number of classes.')


def _is_transposed(mismatch: str) -> bool:
    """Whether a tensor of the file has the dimensions of the network's, in another order."""
    given, wanted = (sorted(shape.split(', ')) for shape in re.findall(r'\[(.*?)\]', mismatch))
    return given == wanted


def _explain_renaming(report: LoadReport, renaming: Renaming) -> list[str]:
    old, new, found = renaming
    change = f'without {old!r} in front' if not new else f'with {new!r} in front' if not old else (
        f'with {new!r} in place of {old!r}')
    kept = 'name' if not old else f'name.removeprefix({old!r})'
    renamed = kept if not new else f'{new!r} + {kept}'
    chosen = f' if name.startswith({old!r})' if old else ''
    sentences = [
        f'The names begin otherwise: {change}, {found} of the {len(report.missing)} missing tensors would be found.',
        'To rename them: from mmfeatdistill.checkpoints.safe_load import read_checkpoint_file; '
        f"file = read_checkpoint_file({report.source!r}); weights = file.get('state_dict', file); "
        f"torch.save(dict(state_dict={{{renamed}: value for name, value in weights.items(){chosen}}}), 'renamed.pth')"]
    if found < len(report.missing):
        sentences.insert(1, f'The other {len(report.missing) - found} are not in the file.')
    return sentences
