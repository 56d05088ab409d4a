# Between transformers; the weight is that of the PSPNets: chosen.
_base_ = '../_base_/pairs/segformer_mit-b0_from-mit-b5_160k_cityscapes-1024x1024.py'
model = dict(
    objectives=dict(
        stage4=dict(type='FeatureMatch', taps=['backbone[-1]'], connector=dict(type='ChannelMLP'),
                    loss=dict(type='SquaredError', loss_weight=2e-5))))
