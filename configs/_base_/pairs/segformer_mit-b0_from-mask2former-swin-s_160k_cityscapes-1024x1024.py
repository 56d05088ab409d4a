# SegFormer MiT-B0 (76.54 mIoU alone) from Mask2Former Swin-S (82.57) on Cityscapes, by mmseg's own recipe for the
# student. The backbones have the same strides.
_base_ = [
    __import__('mmfeatdistill').stock_config('mmseg::segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py'),
    '../distill.py'
]
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmseg::mask2former/mask2former_swin-s_8xb2-90k_cityscapes-512x1024.py', checkpoint='zoo'))
