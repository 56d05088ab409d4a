# A small transformer detector with a wider one as teacher, for the method that looks at a teacher's queries; the digits
# have none. Without dropout inside the attention, which no layer of its own draws.
_base_ = ['mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', '../../configs/_base_/distill.py']
attention = dict(embed_dims=32, num_heads=4, dropout=0.0)
layers = dict(
    num_layers=2,
    layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=dict(embed_dims=32, feedforward_channels=32)))
student = dict(
    _scope_='mmdet', type='DeformableDETR', num_queries=20, num_feature_levels=4,
    data_preprocessor={{_base_.model.data_preprocessor}},
    backbone=dict(type='ResNet', depth=18, stem_channels=8, base_channels=8, out_indices=(1, 2, 3)),
    neck=dict(type='ChannelMapper', in_channels=[16, 32, 64], kernel_size=1, out_channels=32, act_cfg=None,
              norm_cfg=dict(type='GN', num_groups=8), num_outs=4),
    encoder=dict(layers, layer_cfg=dict(layers['layer_cfg'], self_attn_cfg=dict(attention, num_levels=4))),
    decoder=dict(layers, return_intermediate=True,
                 layer_cfg=dict(layers['layer_cfg'], cross_attn_cfg=dict(attention, num_levels=4)),
                 post_norm_cfg=None),
    positional_encoding=dict(num_feats=16, normalize=True, offset=-0.5),
    bbox_head=dict(_base_.model.bbox_head, embed_dims=32),
    train_cfg={{_base_.model.train_cfg}}, test_cfg={{_base_.model.test_cfg}})
model = dict(
    _delete_=True, type='mmfeatdistill.FeatureDistiller', student=student,
    teacher=dict(model=student, checkpoint=None),
    objectives=dict(target_aware=dict(type='TargetAware', taps=['neck'])))
