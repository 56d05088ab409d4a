"""Feature distillation for OpenMMLab detectors, segmenters and classifiers."""
from typing import TYPE_CHECKING, Any

from mmfeatdistill.mmcv_ops import make_available as make_operators_available
from mmfeatdistill.version import __version__
from mmfeatdistill.zoo.packages import check_requirements, make_stock_configs_resolvable, stock_config

if TYPE_CHECKING:
    from mmfeatdistill.distillers import FeatureDistiller, LabelFreeDistiller
    from mmfeatdistill.errors import ConfigError
    from mmfeatdistill.taps.reader import TapReader
    from mmfeatdistill.teacher.teacher import Teacher
    from mmfeatdistill.utils import register_all_modules

check_requirements()
make_stock_configs_resolvable()
make_operators_available()

__all__ = ['ConfigError', 'FeatureDistiller', 'LabelFreeDistiller', 'TapReader', 'Teacher', '__version__',
           'register_all_modules', 'stock_config']

# Imported on first use: configs and command lines import this package for its registry alone, and should not wait.
_LAZY = {'ConfigError': 'errors', 'FeatureDistiller': 'distillers', 'LabelFreeDistiller': 'distillers',
         'TapReader': 'taps.reader', 'Teacher': 'teacher.teacher', 'register_all_modules': 'utils'}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib import import_module
    value = getattr(import_module(f'{__name__}.{_LAZY[name]}'), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
