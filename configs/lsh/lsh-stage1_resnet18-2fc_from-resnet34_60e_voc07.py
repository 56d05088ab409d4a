# LSHL2 with several labels, first stage: backbone and new linear layer learn from the teacher's features alone.
# In the authors' published scripts the new layer learns alone: with 'backbone': dict(lr_mult=0) next to 'head.fc'.
_base_ = '../_base_/pairs/resnet18-2fc_from-resnet34_60e_voc07.py'
model = dict(
    student=dict(head=dict(loss=dict(loss_weight=0.0))),
    objectives=dict(penultimate=dict(type='LSH', taps=['head.fc:in'], hashes=2048, bias='median', loss_weight=1)))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'head.fc': dict(lr_mult=0)}))
