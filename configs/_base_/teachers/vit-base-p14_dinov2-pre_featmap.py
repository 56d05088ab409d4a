# DINOv2 ViT-B/14 that gives the map of its patch tokens; a teacher only, without a head.
_base_ = 'mmpretrain::dinov2/vit-base-p14_dinov2-pre_headless.py'
default_scope = 'mmpretrain'
model = dict(backbone=dict(out_type='featmap'))
