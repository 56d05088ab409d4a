# What the classifier reads, pixel by pixel, in front of the student's dropout. The paper has no segmentation: number of
# hashes, offsets and weight are the defaults, the authors' for classification.
_base_ = '../_base_/pairs/pspnet_r18_from-pspnet-r101_80k_cityscapes-512x1024.py'
model = dict(
    objectives=dict(
        penultimate=dict(type='LSH', taps=['decode_head.bottleneck'], classifier='decode_head.conv_seg',
                         connector=dict(type='Conv1x1'))))
