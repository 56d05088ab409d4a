# COCO 2014 with several labels, squeezed into 448x448 pixels as the authors of LSH do. Annotations are made by
# tools/dataset_converters/coco_multi_label.py.
_base_ = 'voc07_448px.py'
data_preprocessor = dict(num_classes=80)
train_dataloader = dict(
    batch_size=32,
    dataset=dict(
        _delete_=True, type='MultiLabelDataset', data_root='data/coco', data_prefix='train2014',
        ann_file='annotations/multi_label_train2014.json', pipeline=_base_.train_pipeline))
val_dataloader = dict(
    batch_size=32,
    dataset=dict(
        _delete_=True, type='MultiLabelDataset', data_root='data/coco', data_prefix='val2014',
        ann_file='annotations/multi_label_val2014.json',
        pipeline=_base_.train_pipeline[:2] + _base_.train_pipeline[-1:]))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='MultiLabelMetric'), dict(type='MultiLabelMetric', average='micro'), dict(type='AveragePrecision')]
test_evaluator = val_evaluator
