# Pascal VOC 2007 with several labels, squeezed into 448x448 pixels as the authors of LSH do. A difficult object is no
# label in training, as everywhere in mmpretrain; in their code it is one.
_base_ = 'mmpretrain::_base_/datasets/voc_bs16.py'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(448, 448)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3),
    dict(type='PackInputs')
]
test_pipeline = [_base_.test_pipeline[0], train_pipeline[1], _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
