# Faster R-CNN on the digits with an ensemble: three teachers of one config, each trained from a seed of its own.
_base_ = 'faster-rcnn_digits.py'
config = {{_base_.model.teacher.config}}
model = dict(teacher=[
    dict(config=config, checkpoint='work_dirs/faster-rcnn_r18-w32_fpn_digits/epoch_7.pth'),
    dict(config=config, checkpoint='work_dirs/faster-rcnn_r18-w32_fpn_digits_2/epoch_7.pth'),
    dict(config=config, checkpoint='work_dirs/faster-rcnn_r18-w32_fpn_digits_3/epoch_7.pth')])
