"""What ``mmcv._ext`` is where mmcv has no compiled operators: it finds them by name in mmfeatdistill.

In an installed mmcv this file is ``_ext.py`` by ``python -m mmfeatdistill.mmcv_ops install``; ``remove`` deletes it.
"""
from mmfeatdistill.mmcv_ops.extension import find as __getattr__  # noqa: F401
