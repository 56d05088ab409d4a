# PSPNet R18 (74.87 mIoU alone) from PSPNet R101 (79.76) on Cityscapes, by mmseg's own recipe: crops of 512x1024,
# 80k iterations, 4 GPUs with 2 images.
_base_ = [
    __import__('mmfeatdistill').stock_config('mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'),
    '../distill.py'
]
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmseg::pspnet/pspnet_r101-d8_4xb2-80k_cityscapes-512x1024.py', checkpoint='zoo'))
