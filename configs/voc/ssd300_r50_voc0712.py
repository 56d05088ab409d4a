# Teacher: SSD300 R50. The last three stages give maps of 38, 19 and 10 positions a side, the neck those of 5, 3 and 1.
_base_ = 'mmdet::pascal_voc/ssd300_voc0712.py'
custom_imports = dict(imports=['mmfeatdistill.zoo.ssd_fix'], allow_failed_imports=False)  # mmdet's SSD cannot predict
widths = (512, 1024, 2048, 512, 256, 256)
model = dict(
    data_preprocessor=dict(std=[58.395, 57.12, 57.375]),
    backbone=dict(
        _delete_=True, type='ResNet', depth=50, out_indices=(1, 2, 3),
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    neck=dict(in_channels=widths[:3], out_channels=widths, level_strides=(2, 1, 1), level_paddings=(1, 0, 0)),
    bbox_head=dict(in_channels=widths))
