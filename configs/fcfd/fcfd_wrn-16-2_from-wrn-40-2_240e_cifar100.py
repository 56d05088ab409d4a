# FCFD on CIFAR-100, WRN-40-2 to WRN-16-2, with the settings of the authors' code: L_app rises over 20 epochs, mixed
# paths weigh 0.2 for this pair.
_base_ = '../_base_/pairs/wrn-16-2_from-wrn-40-2_240e_cifar100.py'
model = dict(
    teacher=dict(batch_statistics=True),
    objectives=dict(
        kd=dict(type='FeatureMatch', taps=['head.fc'], loss=dict(type='KLDivergence', tau=4.0)),
        fcfd=dict(type='FCFD', output='head.fc', tau=4.0, appearance_weight=5.0, function_weight=0.2,
                  taps=['backbone.layer1', 'backbone.layer2', 'backbone.bn1'])))
custom_hooks = _base_.custom_hooks + [
    dict(type='mmfeatdistill.ObjectiveScheduleHook', objective='fcfd', loss='loss_appearance', warmup=20)]
