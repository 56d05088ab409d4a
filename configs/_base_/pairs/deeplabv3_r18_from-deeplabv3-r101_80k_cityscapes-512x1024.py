# DeepLabV3 R18 (76.70 mIoU alone) from DeepLabV3 R101 (80.20) on Cityscapes, by mmseg's own recipe: crops of 512x1024,
# 80k iterations, 4 GPUs with 2 images.
_base_ = [
    __import__('mmfeatdistill').stock_config('mmseg::deeplabv3/deeplabv3_r18-d8_4xb2-80k_cityscapes-512x1024.py'),
    '../distill.py'
]
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmseg::deeplabv3/deeplabv3_r101-d8_4xb2-80k_cityscapes-512x1024.py', checkpoint='zoo'))
