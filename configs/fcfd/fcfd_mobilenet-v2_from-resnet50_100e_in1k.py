# FCFD on ImageNet, ResNet-50 to MobileNetV2, with the settings that the authors' code has for MobileNetV1.
_base_ = '../_base_/pairs/mobilenet-v2_from-resnet50_100e_in1k.py'
model = dict(
    teacher=dict(batch_statistics=True),
    objectives=dict(
        kd=dict(type='FeatureMatch', taps=['head.fc'], loss=dict(type='KLDivergence', tau=1.0)),
        fcfd=dict(type='FCFD', output='head.fc', tau=1.0, appearance_weight=5.0,
                  taps=[dict(student=f'backbone.{student}', teacher=f'backbone.layer{teacher}')
                        for teacher, student in enumerate(('layer2', 'layer3', 'layer5', 'conv2'), 1)])))
optim_wrapper = dict(optimizer=dict(nesterov=True))
custom_hooks = _base_.custom_hooks + [
    dict(type='mmfeatdistill.ObjectiveScheduleHook', objective='fcfd', loss='loss_appearance', warmup=5)]
