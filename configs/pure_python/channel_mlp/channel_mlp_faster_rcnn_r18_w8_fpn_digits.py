# Channel MLP: Faster R-CNN on the digits, as configs/channel_mlp/channel-mlp_faster-rcnn_r18-w8_fpn_digits.py.
from os.path import dirname

from mmengine.config import read_base

from mmfeatdistill.connectors import ChannelMLP
from mmfeatdistill.distillers import FeatureDistiller
from mmfeatdistill.losses import SquaredError
from mmfeatdistill.objectives import FeatureMatch

with read_base():
    from ..digits.faster_rcnn_r18_w8_fpn_digits import *
    from .._base_.distill_hooks import *

model = dict(
    type=FeatureDistiller,
    student=model,
    teacher=dict(config=f'{dirname(__file__)}/../../digits/faster-rcnn_r18-w32_fpn_digits.py',
                 checkpoint='work_dirs/faster-rcnn_r18-w32_fpn_digits/epoch_7.pth'),
    objectives=dict(fpn=dict(
        type=FeatureMatch, taps=['neck'], connector=dict(type=ChannelMLP),
        loss=dict(type=SquaredError, loss_weight=1e-4))))
