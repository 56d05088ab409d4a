# FCFD on ImageNet, ResNet-34 to ResNet-18, with the settings of the authors' code: stages end after their ReLU, and
# L_app rises over 5 epochs.
_base_ = '../_base_/pairs/resnet18_from-resnet34_100e_in1k.py'
model = dict(
    teacher=dict(batch_statistics=True),
    objectives=dict(
        kd=dict(type='FeatureMatch', taps=['head.fc'], loss=dict(type='KLDivergence', tau=1.0)),
        fcfd=dict(type='FCFD', output='head.fc', tau=1.0, appearance_weight=0.02,
                  taps=[f'backbone.layer{stage}' for stage in (1, 2, 3, 4)])))
optim_wrapper = dict(optimizer=dict(nesterov=True))
custom_hooks = _base_.custom_hooks + [
    dict(type='mmfeatdistill.ObjectiveScheduleHook', objective='fcfd', loss='loss_appearance', warmup=5)]
