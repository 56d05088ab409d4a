_base_ = '../_base_/pairs/resnet18_digits.py'
model = dict(
    objectives=dict(
        penultimate=dict(type='LSH', taps=['head.fc:in'], connector=dict(type='Conv1x1'), loss_weight=30)))
