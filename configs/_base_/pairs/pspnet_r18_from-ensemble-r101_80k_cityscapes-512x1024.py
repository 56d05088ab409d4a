# PSPNet R18 (74.87 mIoU alone) from PSPNet R101 (79.76), DeepLabV3 R101 (80.20) and DeepLabV3+ R101 (80.97) on
# Cityscapes, by mmseg's own recipe. Their last stages are of one width and size, so that no term outweighs another.
_base_ = [
    __import__('mmfeatdistill').stock_config('mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'),
    '../distill.py'
]
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=[
        dict(config='mmseg::pspnet/pspnet_r101-d8_4xb2-80k_cityscapes-512x1024.py', checkpoint='zoo'),
        dict(config='mmseg::deeplabv3/deeplabv3_r101-d8_4xb2-80k_cityscapes-512x1024.py', checkpoint='zoo'),
        dict(config='mmseg::deeplabv3plus/deeplabv3plus_r101-d8_4xb2-80k_cityscapes-512x1024.py', checkpoint='zoo')])
