# Three architectures teach at once; each has a translator of its own. The paper has no segmentation: the weight
# is chosen.
_base_ = '../_base_/pairs/pspnet_r18_from-ensemble-r101_80k_cityscapes-512x1024.py'
model = dict(
    objectives=dict(
        stage4=dict(type='FeatureMatch', taps=['backbone[-1]'], connector=dict(type='Translator'),
                    loss=dict(type='FactorTransfer', loss_weight=1000))))
