"""Feature distillation for OpenMMLab detectors, segmenters and classifiers."""
from mmfeatdistill.mmcv_ops import make_available as make_operators_available
from mmfeatdistill.version import __version__
from mmfeatdistill.zoo.packages import check_requirements, make_stock_configs_resolvable, stock_config

check_requirements()
make_stock_configs_resolvable()
make_operators_available()

__all__ = ['__version__', 'stock_config']
