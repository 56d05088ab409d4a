# OFD on ImageNet, ResNet-50 to MobileNetV2, with the settings that the authors have for MobileNetV1. A stage of
# MobileNetV2 ends without a ReLU: as in the authors' segmenters it is read where the next stage has its first one, and
# the last stage in front of the pooling.
_base_ = '../_base_/pairs/mobilenet-v2_from-resnet50_100e_in1k.py'
model = dict(
    teacher=dict(batch_statistics=True),
    objectives=dict(
        stages=dict(
            type='OFD', loss_weight=1e-4,
            taps=[dict(student='backbone.layer3.0.conv.0:pre', teacher='backbone.layer1:pre'),
                  dict(student='backbone.layer4.0.conv.0:pre', teacher='backbone.layer2:pre'),
                  dict(student='backbone.layer6.0.conv.0:pre', teacher='backbone.layer3:pre'),
                  dict(student='backbone.conv2:pre', teacher='backbone.layer4:pre')])))
optim_wrapper = dict(optimizer=dict(nesterov=True))
