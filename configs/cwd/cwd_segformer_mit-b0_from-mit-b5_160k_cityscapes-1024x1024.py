# Between transformers; temperature and weight as between the PSPNets: chosen.
_base_ = '../_base_/pairs/segformer_mit-b0_from-mit-b5_160k_cityscapes-1024x1024.py'
model = dict(
    objectives=dict(
        logits=dict(type='FeatureMatch', taps=['decode_head.conv_seg'],
                    loss=dict(type='ChannelWiseDivergence', tau=1, loss_weight=5))))
