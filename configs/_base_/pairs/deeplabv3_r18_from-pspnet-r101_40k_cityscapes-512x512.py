# DeepLabV3 R18 from PSPNet R101 on Cityscapes, by the recipe of MGD's authors: crops of 512x512, 40k iterations,
# 8 GPUs with 2 images. The teacher is theirs, mmseg's of 512x1024 and 40k iterations (78.34 mIoU).
_base_ = [
    '../../cityscapes/deeplabv3_r18-d8_8xb2-40k_cityscapes-512x512.py',
    '../distill.py'
]
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmseg::pspnet/pspnet_r101-d8_4xb2-40k_cityscapes-512x1024.py', checkpoint='zoo'))
