# DeepLabV3+ MobileNetV2 from R101 (78.62 mIoU) on VOC2012 (aug), by mmseg's own recipe.
_base_ = [
    '../../voc/mobilenet-v2-d8_deeplabv3plus_4xb4-40k_voc12aug-512x512.py',
    '../distill.py'
]
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmseg::deeplabv3plus/deeplabv3plus_r101-d8_4xb4-40k_voc12aug-512x512.py',
                 checkpoint='zoo'))
