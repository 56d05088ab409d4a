# A backbone from images without labels: only the objective trains, and nothing is validated.
_base_ = '../channel_mlp/channel-mlp_resnet18-w8_digits.py'
model = dict(type='mmfeatdistill.LabelFreeDistiller')
train_dataloader = dict(dataset=dict(with_label=False))
train_cfg = dict(val_interval=1000)
val_cfg, val_dataloader, val_evaluator = None, None, None
default_hooks = dict(checkpoint=dict(save_best=None))
