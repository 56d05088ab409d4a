"""The weights of a teacher: which are asked for, how they fit, and what may be read of a network that lacks some."""
import logging
import os.path as osp
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Optional

from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor, nn

from mmfeatdistill.checkpoints.init_cfg import load_init_cfg
from mmfeatdistill.checkpoints.load import LoadReport, load_checkpoint
from mmfeatdistill.checkpoints.load_fit import explain_load
from mmfeatdistill.checkpoints.safe_load import reading_safely
from mmfeatdistill.checkpoints.trained_with import differences, trained_model
from mmfeatdistill.errors import ConfigError, config_key
from mmfeatdistill.taps.tap import Tap
from mmfeatdistill.teacher.initialization import init_unset_parameters
from mmfeatdistill.zoo.configs import zoo_weights

_CLASSIFIERS = ('fc.', 'head.', 'classifier.')
"""Parts of a backbone that come after what it gives to others."""


class MisfitError(ConfigError):
    """A checkpoint does not fit its teacher.

    Args:
        message (str): For people.
        key (str): Of the checkpoint.
        report (LoadReport): How it fits.
    """

    def __init__(self, message: str, key: str, report: LoadReport) -> None:
        super().__init__(message)
        self.key = key
        self.report = report


class TeacherWeights:
    """Loads what a config asks for, and refuses to let be read what has none of it.

    Args:
        checkpoint (str, optional): A path, a URL, ``'init_cfg'``, or None for random weights.
        strict (bool): Whether what does not fit in full is refused.
        weights_only (bool): Whether a file that holds more than tensors and plain data is refused.
        key (str): Of the checkpoint, for messages.
    """

    def __init__(self, checkpoint: Optional[str], strict: bool, weights_only: bool, key: str) -> None:
        self._checkpoint = checkpoint
        self._strict = strict
        self._weights_only = weights_only
        self._key = key
        self._report: Optional[LoadReport] = None
        self._random: Collection[str] = ()  # children without weights

    @property
    def set_all(self) -> bool:
        """Whether every parameter is loaded, so that no random ones are needed."""
        return self._strict and self._checkpoint not in (None, 'init_cfg')

    def load(self, model: nn.Module, cfg: Mapping) -> Optional[LoadReport]:
        """Loads the network.

        Args:
            model (nn.Module): The network.
            cfg (dict): Its model config.

        Returns:
            LoadReport | None: How the checkpoint fitted; None for random weights.

        Raises:
            MisfitError: It does not fit.
            ConfigError: There is none.
        """
        key = self._key
        if self._checkpoint is None:
            print_log(f'{key} is None: the teacher has random weights, and nothing can be learned from it.',
                      logger='current', level=logging.WARNING)
            init_unset_parameters(model)
            return None
        if self._checkpoint == 'init_cfg':
            report, complete = self._load_init_cfg(model, cfg)
        else:
            if not self._strict:
                init_unset_parameters(model)  # which it may lack
            with config_key(key):
                report = load_checkpoint(model, self._checkpoint, self._weights_only)
            if not (report.fits if self._strict else report.matched):
                going_on = ', or set strict=False to go on with what fits' if report.matched else ''
                raise MisfitError(' '.join([
                    f'{key}: does not fit the teacher. {report}.', *explain_load(report), 'Give the checkpoint of this '
                    f'very config{going_on}.']), key, report)
            complete = report.fits and not report.unexpected
        print_log(f'Teacher: {report}', logger='current', level=logging.INFO if complete else logging.WARNING)
        if broken := next((name for name, value in _learned(model) if not _is_finite(value)), None):
            raise ConfigError(f'{key}: {broken!r} has values that are infinite or NaN, as after a training that has '
                              'diverged, and so would all losses have. Give an earlier checkpoint.')
        self._report = report
        self._compare(report, model, cfg)
        return report

    def _compare(self, report: LoadReport, model: nn.Module, cfg: Mapping) -> None:
        """Says where the file was trained in a network that computes something else with the same tensors."""
        trained = trained_model(report.meta.get('cfg'))
        found = list(differences(trained, cfg, model)) if trained is not None else []
        if found:
            print_log(f'{self._key}: all fits, but the file was trained with {", ".join(found[:5])}, by which the same '
                      'tensors may compute something else. Give the config that it was trained with, unless this is '
                      'meant.', logger='current', level=logging.WARNING)

    def check_taps(self, taps: Sequence[str], owner: str) -> None:
        """Refuses taps of parts without weights, or with others than those of the file.

        Args:
            taps (Sequence[str]): See :mod:`mmfeatdistill.taps.reader`.
            owner (str): What the teacher is called in messages.

        Raises:
            ValueError: Nothing was loaded for a tapped part.
            ConfigError: Tensors that the network lacks belong to what is tapped, which then computes something else.
        """
        for tap in taps if self._random else ():
            if (part := Tap.parse(tap).place.path.partition('.')[0]) in self._random:
                raise ValueError(f"{tap!r} is in {owner}.{part}, of which nothing was loaded: checkpoint='init_cfg' "
                                 f'loads what the model names weights for, and it names none for {part!r}. Tap a part '
                                 'that has weights, give a checkpoint of all, or set strict=False to go on.')
        if self._report is None or not self._strict:
            return
        for tap in taps:
            path = Tap.parse(tap).place.path
            around = {path[:end] for end, letter in enumerate(f'{path}.') if letter == '.'}
            for name in self._report.unexpected:
                rest = name.removeprefix(f'{path}.')
                is_inside = rest != name and not rest.startswith(_CLASSIFIERS)
                if is_inside or name.rpartition('.')[0] in around:
                    raise ConfigError(f'{self._key}: {name!r} is left over, which belongs to what {tap!r} gives in the '
                                      f'network of the file ({self._report.source}), so this one computes something '
                                      'else. Give the checkpoint of this very config, or set strict=False to go on.')

    def _load_init_cfg(self, model: nn.Module, cfg: Mapping) -> tuple[LoadReport, bool]:
        """The report, and whether all that it names was loaded in full."""
        with config_key(self._key), reading_safely(self._weights_only):
            report, partly, unloaded, misfits = load_init_cfg(model, cfg)
        if misfits and (self._strict or not report.matched):
            raise ConfigError(f'{self._key}: {"; ".join(misfits)}.')
        if not report.matched:
            raise ConfigError(f"{self._key}: is 'init_cfg', but nothing in the model names weights that could be "
                              "loaded, by an init_cfg of type 'Pretrained' or by pretrained=True. Give a path, a URL "
                              "or 'zoo', or None for a random teacher.")
        if self._strict and partly:
            raise ConfigError(f"{self._key}: what init_cfg names fits {', '.join(map(repr, partly))} in part only. "
                              f'{report}. Give weights of this very network, or set strict=False to go on.')
        self._random = unloaded if self._strict else ()
        return report, report.complete


def _learned(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and running statistics; other buffers, such as masks of attention, may be infinite."""
    yield from model.named_parameters()
    yield from (buffer for buffer in model.named_buffers() if buffer[0].endswith(('running_mean', 'running_var')))


def _is_finite(values: Tensor) -> bool:
    """Whether all are; the sum tells it faster, unless the sum of finite values overflows."""
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def resolve_checkpoint(checkpoint: Optional[str], name: Optional[str], config: Optional[Config],
                       key: str) -> Optional[str]:
    """What ``'auto'`` and ``'zoo'`` stand for.

    Args:
        checkpoint (str, optional): As the config has it.
        name (str, optional): Of the teacher's config, as the config has it.
        config (Config, optional): That config.
        key (str): Of the checkpoint, for messages.

    Returns:
        str | None: A path, a URL, ``'init_cfg'``, or None for random weights.

    Raises:
        ConfigError: It is missing, or the zoo has none.

    Examples:
        >>> resolve_checkpoint('teacher.pth', 'teacher.py', None, 'model.teacher.checkpoint')
        'teacher.pth'
    """
    if checkpoint == 'auto':
        if config is None or osp.isfile(str(name)):
            raise ConfigError(f'{key}: is missing; give a path, a URL, or None for a random teacher. A network of '
                              "another library also has 'pretrained', that library's own weights.")
        checkpoint = 'zoo'
    if checkpoint == 'zoo':
        with config_key(key):
            return zoo_weights(config.filename if config is not None else 'model', name or '')
    if checkpoint == 'pretrained':
        raise ConfigError(f"{key}: 'pretrained' stands for the weights of another library, such as timm; the networks "
                          "of the MM libraries have 'zoo' or 'init_cfg'.")
    if checkpoint is not None and not isinstance(checkpoint, str):
        raise ConfigError(f'{key}: expected a path, a URL, \'zoo\', \'init_cfg\' or None, got {checkpoint!r}.')
    return checkpoint
