_base_ = '../_base_/pairs/pspnet_digits.py'
model = dict(
    objectives=dict(
        penultimate=dict(type='LSH', taps=['decode_head.bottleneck'], classifier='decode_head.conv_seg',
                         connector=dict(type='Conv1x1'), loss_weight=30)))
