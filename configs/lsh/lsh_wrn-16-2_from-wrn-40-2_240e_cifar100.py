# LSHL2 of the images that the teacher classifies correctly on CIFAR-100, WRN-40-2 to WRN-16-2, with the settings of the
# authors' code: 32 hashes for each of the 128 channels.
_base_ = '../_base_/pairs/wrn-16-2_from-wrn-40-2_240e_cifar100.py'
model = dict(
    objectives=dict(
        penultimate=dict(type='LSH', taps=['head.fc:in'], hashes=32 * 128, bias='median', only_correct=True,
                         loss_weight=6)))
optim_wrapper = dict(optimizer=dict(nesterov=False))
