# FCFD on ImageNet, ResNet-50 to MobileNetV1, with the settings of the authors' code.
_base_ = '../_base_/pairs/mobilenet-v1_from-resnet50_100e_in1k.py'
model = dict(
    teacher=dict(batch_statistics=True),
    objectives=dict(
        kd=dict(type='FeatureMatch', taps=['head.fc'], loss=dict(type='KLDivergence', tau=1.0)),
        fcfd=dict(type='FCFD', output='head.fc', tau=1.0, appearance_weight=5.0,
                  taps=[f'backbone.layer{stage}' for stage in (1, 2, 3, 4)])))
optim_wrapper = dict(optimizer=dict(nesterov=True))
custom_hooks = _base_.custom_hooks + [
    dict(type='mmfeatdistill.ObjectiveScheduleHook', objective='fcfd', loss='loss_appearance', warmup=5)]
