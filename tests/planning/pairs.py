"""Thirty pairs of stock configs, as different as a user's may be, by a short name."""
from typing import NamedTuple, Optional


class Row(NamedTuple):
    """A pair, and what is to come of it.

    Attributes:
        student: A stock config, without its library.
        teacher: Likewise.
        method: By which it is distilled.
        refused: What the message says where the method cannot fit the pair; None where a step is made.
    """

    student: str
    teacher: str
    method: str = 'channel_mlp'
    refused: Optional[str] = None


DETECTION = dict(
    faster_rcnn=Row('faster_rcnn/faster-rcnn_r50_fpn_1x_coco', 'faster_rcnn/faster-rcnn_r101_fpn_2x_coco', 'mgd'),
    retinanet=Row('retinanet/retinanet_r18_fpn_1x_coco', 'retinanet/retinanet_r101_fpn_1x_coco', 'pkd'),
    fcos_from_atss=Row('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco', 'atss/atss_r101_fpn_1x_coco'),
    yolox=Row('yolox/yolox_tiny_8xb8-300e_coco', 'yolox/yolox_m_8xb8-300e_coco'),
    rtmdet=Row('rtmdet/rtmdet_tiny_8xb32-300e_coco', 'rtmdet/rtmdet_m_8xb32-300e_coco', 'cwd'),
    detr=Row('detr/detr_r18_8xb2-500e_coco', 'detr/detr_r50_8xb2-150e_coco'),
    deformable_detr_from_dino=Row('deformable_detr/deformable-detr_r50_16xb2-50e_coco',
                                  'dino/dino-4scale_r50_8xb2-12e_coco'),
    mask_rcnn_from_swin=Row('mask_rcnn/mask-rcnn_r50_fpn_1x_coco', 'swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco', 'fcfd'),
    ssd_from_retinanet=Row('ssd/ssd300_coco', 'retinanet/retinanet_r50_fpn_1x_coco'),
    yolov3=Row('yolo/yolov3_mobilenetv2_8xb24-320-300e_coco', 'yolo/yolov3_d53_8xb8-ms-608-273e_coco'),
    mask2former_instances=Row('mask2former/mask2former_r50_8xb2-lsj-50e_coco',
                              'mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco'),
    solov2=Row('solov2/solov2-light_r18_fpn_ms-3x_coco', 'solov2/solov2_r50_fpn_1x_coco', 'ofd'),
    cascade_from_convnext=Row(
        'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco',
        'convnext/cascade-mask-rcnn_convnext-t-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco', 'feed'),
    centernet_from_faster_rcnn=Row('centernet/centernet_r18_8xb16-crop512-140e_coco',
                                   'faster_rcnn/faster-rcnn_r50_fpn_1x_coco'),
    logits_of_a_detector=Row('retinanet/retinanet_r18_fpn_1x_coco', 'retinanet/retinanet_r50_fpn_1x_coco', 'kd',
                             refused='it is for segmentation and classification'),
)
SEGMENTATION = dict(
    pspnet=Row('pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024', 'pspnet/pspnet_r50-d8_4xb2-80k_cityscapes-512x1024',
               'cwd'),
    deeplabv3plus=Row('deeplabv3plus/deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024',
                      'deeplabv3plus/deeplabv3plus_r50-d8_4xb2-80k_cityscapes-512x1024', 'lsh'),
    segformer=Row('segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024',
                  'segformer/segformer_mit-b2_8xb1-160k_cityscapes-1024x1024'),
    mask2former=Row('mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024',
                    'mask2former/mask2former_swin-t_8xb2-90k_cityscapes-512x1024'),
    pspnet_from_segformer_of_other_classes=Row('pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024',
                                               'segformer/segformer_mit-b2_8xb2-160k_ade20k-512x512'),
    fast_scnn_from_ocrnet=Row('fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024',
                              'ocrnet/ocrnet_hr18s_4xb2-80k_cityscapes-512x1024'),
    upernet_swin_from_convnext=Row('swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512',
                                   'convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512', 'at'),
    logits_of_other_classes=Row('pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024',
                                'pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512', 'cwd',
                                refused='the student has 19 classes and the teacher 150'),
)
CLASSIFICATION = dict(
    resnet=Row('resnet/resnet18_8xb32_in1k', 'resnet/resnet34_8xb32_in1k', 'kd'),
    mobilenet_from_resnet=Row('mobilenet_v2/mobilenet-v2_8xb32_in1k', 'resnet/resnet50_8xb32_in1k', 'fcfd'),
    deit_from_vit=Row('deit/deit-tiny_4xb256_in1k', 'deit/deit-small_4xb256_in1k'),
    resnet_from_vit=Row('resnet/resnet18_8xb32_in1k', 'deit/deit-small_4xb256_in1k'),
    swin=Row('swin_transformer/swin-tiny_16xb64_in1k', 'swin_transformer/swin-small_16xb64_in1k', 'dist'),
    convnext_from_swin=Row('convnext/convnext-tiny_32xb128_in1k', 'swin_transformer/swin-small_16xb64_in1k'),
    shufflenet_from_efficientnet=Row('shufflenet_v2/shufflenet-v2-1x_16xb64_in1k',
                                     'efficientnet/efficientnet-b3_8xb32_in1k', 'rkd'),
)
LIBRARIES = dict(mmdet=DETECTION, mmseg=SEGMENTATION, mmpretrain=CLASSIFICATION)
ROWS = {f'{library}-{name}': Row(f'{library}::{row.student}.py', f'{library}::{row.teacher}.py', *row[2:])
        for library, rows in LIBRARIES.items() for name, row in rows.items()}
