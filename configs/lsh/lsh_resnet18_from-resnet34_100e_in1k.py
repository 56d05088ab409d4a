# LSHL2 of the images that the teacher classifies correctly on ImageNet, ResNet-34 to ResNet-18, with the settings of
# the authors' code.
_base_ = '../_base_/pairs/resnet18_from-resnet34_100e_in1k.py'
model = dict(
    objectives=dict(
        penultimate=dict(type='LSH', taps=['head.fc:in'], hashes=2048, bias='zero', only_correct=True, loss_weight=5)))
