# PSPNet on the digits with an ensemble: three teachers of one config, each trained from a seed of its own.
_base_ = 'pspnet_digits.py'
config = {{_base_.model.teacher.config}}
model = dict(teacher=[
    dict(config=config, checkpoint='work_dirs/pspnet_r18-w32-d8_digits/epoch_7.pth'),
    dict(config=config, checkpoint='work_dirs/pspnet_r18-w32-d8_digits_2/epoch_7.pth'),
    dict(config=config, checkpoint='work_dirs/pspnet_r18-w32-d8_digits_3/epoch_7.pth')])
