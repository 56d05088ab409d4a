# Channel MLP: PSPNet on the digits, as configs/channel_mlp/channel-mlp_pspnet_r18-w8-d8_digits.py.
from os.path import dirname

from mmengine.config import read_base

from mmfeatdistill.connectors import ChannelMLP
from mmfeatdistill.distillers import FeatureDistiller
from mmfeatdistill.losses import SquaredError
from mmfeatdistill.objectives import FeatureMatch

with read_base():
    from ..digits.pspnet_r18_w8_d8_digits import *
    from .._base_.distill_hooks import *

model = dict(
    type=FeatureDistiller,
    student=model,
    teacher=dict(config=f'{dirname(__file__)}/../../digits/pspnet_r18-w32-d8_digits.py',
                 checkpoint='work_dirs/pspnet_r18-w32-d8_digits/epoch_7.pth'),
    objectives=dict(stage4=dict(
        type=FeatureMatch, taps=['backbone[-1]'], connector=dict(type=ChannelMLP),
        loss=dict(type=SquaredError, loss_weight=1e-4))))
