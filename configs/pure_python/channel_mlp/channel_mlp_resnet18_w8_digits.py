# Channel MLP: ResNet-18 on the digits, as configs/channel_mlp/channel-mlp_resnet18-w8_digits.py.
from os.path import dirname

from mmengine.config import read_base

from mmfeatdistill.connectors import ChannelMLP
from mmfeatdistill.distillers import FeatureDistiller
from mmfeatdistill.losses import SquaredError
from mmfeatdistill.objectives import FeatureMatch

with read_base():
    from ..digits.resnet18_w8_digits import *
    from .._base_.distill_hooks import *

model = dict(
    type=FeatureDistiller,
    student=model,
    teacher=dict(config=f'{dirname(__file__)}/../../digits/resnet18-w32_digits.py',
                 checkpoint='work_dirs/resnet18-w32_digits/epoch_9.pth'),
    objectives=dict(stage4=dict(
        type=FeatureMatch, taps=['backbone'], connector=dict(type=ChannelMLP),
        loss=dict(type=SquaredError, loss_weight=1e-2))))
