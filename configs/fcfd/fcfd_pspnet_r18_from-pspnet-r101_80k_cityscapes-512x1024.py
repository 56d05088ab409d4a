# The paper has no segmentation: the weights are those of the PSPNet on the digits, chosen there. The ramp is the
# authors' 20 epochs, here of 372 iterations with 8 images.
_base_ = '../_base_/pairs/pspnet_r18_from-pspnet-r101_80k_cityscapes-512x1024.py'
model = dict(
    objectives=dict(
        kd=dict(type='FeatureMatch', taps=['decode_head.conv_seg'], loss=dict(type='KLDivergence', tau=1.0)),
        fcfd=dict(type='FCFD', output='decode_head.conv_seg', tau=1.0, appearance_weight=5.0, function_weight=0.1,
                  taps=['backbone.layer1:pre', 'backbone.layer2:pre', 'backbone.layer3:pre', 'backbone.layer4:pre'])))
custom_hooks = _base_.custom_hooks + [
    dict(type='mmfeatdistill.ObjectiveScheduleHook', objective='fcfd', loss='loss_appearance', warmup=20 * 372,
         by_epoch=False)]
