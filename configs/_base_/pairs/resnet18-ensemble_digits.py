# ResNet-18 on the digits with an ensemble: three teachers of one config, each trained from a seed of its own.
_base_ = 'resnet18_digits.py'
config = {{_base_.model.teacher.config}}
model = dict(teacher=[
    dict(config=config, checkpoint='work_dirs/resnet18-w32_digits/epoch_9.pth'),
    dict(config=config, checkpoint='work_dirs/resnet18-w32_digits_2/epoch_9.pth'),
    dict(config=config, checkpoint='work_dirs/resnet18-w32_digits_3/epoch_9.pth')])
