# As MMYOLO distills RTMDet: normalized maps of the neck on both sides, until the strong augmentations end at epoch 280.
_base_ = '../_base_/pairs/rtmdet_tiny_from-s_300e_coco.py'
model = dict(
    objectives=dict(
        levels=dict(type='FeatureMatch', connector=dict(type='ConvBN'),
                    taps=[dict(student=f'neck.out_convs.{level}.conv', teacher=f'neck.out_convs.{level}.bn')
                          for level in range(3)],
                    loss=dict(type='ChannelWiseDivergence', tau=1, loss_weight=1))))
custom_hooks = _base_.custom_hooks + [dict(type='mmfeatdistill.ObjectiveScheduleHook', objective='levels', stop=280)]
