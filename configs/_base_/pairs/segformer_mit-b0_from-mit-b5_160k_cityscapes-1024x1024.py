# SegFormer MiT-B0 (76.54 mIoU alone) from MiT-B5 (82.25) on Cityscapes, by mmseg's own recipe.
_base_ = [
    __import__('mmfeatdistill').stock_config('mmseg::segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py'),
    '../distill.py'
]
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmseg::segformer/segformer_mit-b5_8xb1-160k_cityscapes-1024x1024.py', checkpoint='zoo'))
