# KD of standardized logits on ImageNet, ResNet-34 to ResNet-18, with the settings of the authors' config. Their batch of
# 512 images has the learning rate 0.2, as mmpretrain's 256 have 0.1.
_base_ = '../_base_/pairs/resnet18_from-resnet34_100e_in1k.py'
model = dict(
    objectives=dict(
        logits=dict(type='FeatureMatch', taps=['head.fc'],
                    loss=dict(type='KLDivergence', tau=2, loss_weight=9, standardize=True))))
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=0.2))
auto_scale_lr = dict(base_batch_size=512)
