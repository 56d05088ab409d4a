# ResNet-18 on ImageNet with an ensemble: ResNet-34 of the zoo, and two more of its config, trained from other seeds.
_base_ = 'resnet18_from-resnet34_100e_in1k.py'
config = {{_base_.model.teacher.config}}
model = dict(teacher=[
    dict(config=config, checkpoint='zoo'),
    dict(config=config, checkpoint='work_dirs/resnet34_8xb32_in1k_2/epoch_100.pth'),
    dict(config=config, checkpoint='work_dirs/resnet34_8xb32_in1k_3/epoch_100.pth')])
