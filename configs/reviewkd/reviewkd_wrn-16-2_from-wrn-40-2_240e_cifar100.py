# ReviewKD on CIFAR-100, WRN-40-2 to WRN-16-2: after each stage, the normalization in front of the next ReLU, and the
# pooled vector; weight, warm-up and schedule are those of the authors' code.
_base_ = '../_base_/pairs/wrn-16-2_from-wrn-40-2_240e_cifar100.py'
model = dict(
    teacher=dict(batch_statistics=True),
    objectives=dict(
        review=dict(type='ReviewKD', taps=['backbone.layer2.0.bn1', 'backbone.layer3.0.bn1', 'backbone.bn1', 'neck'],
                    loss_weight=5)))
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(lr=0.1))
auto_scale_lr = dict(base_batch_size=128)
custom_hooks = _base_.custom_hooks + [
    dict(type='mmfeatdistill.ObjectiveScheduleHook', objective='review', warmup=20)]
