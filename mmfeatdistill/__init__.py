"""Feature distillation for OpenMMLab detectors, segmenters and classifiers."""
from mmfeatdistill.mmcv_ops import make_available as make_operators_available
from mmfeatdistill.packages import check_requirements, make_stock_configs_resolvable, stock_config
from mmfeatdistill.version import __version__

check_requirements()
make_stock_configs_resolvable()
make_operators_available()

__all__ = ['__version__', 'stock_config']
