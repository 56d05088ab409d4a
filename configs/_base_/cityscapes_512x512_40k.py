# Cityscapes by the recipe of MGD's authors: crops of 512x512, 40k iterations of 16 images (8 GPUs with 2).
# Their file of this data was not published; what its name does not tell is mmseg's stock.
_base_ = [
    __import__('mmfeatdistill').stock_config('mmseg::_base_/datasets/cityscapes.py'),
    __import__('mmfeatdistill').stock_config('mmseg::_base_/default_runtime.py'),
    __import__('mmfeatdistill').stock_config('mmseg::_base_/schedules/schedule_40k.py')
]
crop_size = (512, 512)
train_pipeline = [dict(step, crop_size=crop_size) if step['type'] == 'RandomCrop' else step
                  for step in _base_.train_pipeline]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
