# Student: ResNet-18 an eighth as wide as the original, with one more linear layer that widens its feature to the
# teacher's before the classifier.
_base_ = 'resnet18-w8_digits.py'

model = dict(
    neck=dict(
        _delete_=True,
        type='LinearNeck',
        in_channels=64,
        out_channels=256,
        gap_dim=2,
        norm_cfg=None),
    head=dict(in_channels=256))
