# Faster R-CNN R50 as the authors of FCFD train: 180k iterations of 8 images, their short side from 640 to 800 pixels.
# They do so on one GPU and in mixed precision, which is --amp on the command line.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_ms-3x_coco.py'
train_dataloader = dict(batch_size=8)
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=180000, val_interval=10000)
optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=180000, milestones=[120000, 160000], gamma=0.1)]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=10000))
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(base_batch_size=8)
