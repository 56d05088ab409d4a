import os.path as osp
from collections import Counter

import pytest
from mmengine.config import Config

from mmfeatdistill import stock_config
from mmfeatdistill.zoo.configs import build_model, load_config, zoo_entries, zoo_weights
from tests.helpers.models import classifier

LIBRARIES = ('mmdet', 'mmseg', 'mmpretrain')


@pytest.mark.parametrize('name, file', [
    ('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'faster-rcnn_r50_fpn_1x_coco.py'),
    ('mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py', 'pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'),
    ('mmpretrain::resnet/resnet18_8xb32_in1k.py', 'resnet18_8xb32_in1k.py'),
    ('faster-rcnn_r50_fpn_1x_coco', 'faster-rcnn_r50_fpn_1x_coco.py'),
    ('mmseg::pspnet_r18-d8_4xb2-80k_cityscapes-512x1024', 'pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'),
    ('mmpretrain::resnet18_8xb32_in1k', 'resnet18_8xb32_in1k.py')])
def test_one_config_by_many_names(name, file):
    cfg = load_config(name)
    assert osp.basename(cfg.filename) == file
    assert cfg.default_scope in LIBRARIES and 'type' in cfg.model


def test_a_file(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text("_base_ = ['mmseg::_base_/models/fcn_r50-d8.py']\ndefault_scope = 'mmseg'\n")
    cfg = load_config(str(path))
    assert cfg.filename == str(path) and cfg.model.type == 'EncoderDecoder'


def test_model_files_of_a_library_get_its_scope():
    assert load_config('mmdet::_base_/models/retinanet_r50_fpn.py').default_scope == 'mmdet'


@pytest.mark.parametrize('name, error, words', [
    ('mine.py', FileNotFoundError, ["there is no config file 'mine.py'", 'looked in ']),
    ('mmdet::faster_rcnn/faster-rcnn_r50_fpn_3x_coco.py', FileNotFoundError,
     ['mmdet ships no config', "Did you mean 'faster_rcnn/faster-rcnn_r50_fpn_"]),
    ('faster-rcnn_r50_fpn_9x_coco', FileNotFoundError,
     ['neither a file, nor a stock config', 'mmdet, mmseg, mmpretrain', 'Did you mean', 'faster-rcnn_r50_fpn_']),
    ('mmseg::resnet18_8xb32_in1k', FileNotFoundError, ['nor a zoo model of mmseg']),
    ('mmyolo::yolov5/yolov5_s.py', ImportError, ["'mmyolo' is not installed", 'pip install']),
    ('mmyolo::yolov5_s', ImportError, ["'mmyolo' is not installed"])])
def test_names_of_nothing(name, error, words):
    with pytest.raises(error) as caught:
        load_config(name)
    assert all(word in str(caught.value) for word in words), caught.value


# The metafiles name these where they are not: without their folder, of another folder, or misspelled.
WITHOUT_CONFIG = dict(
    mmdet={'mask-rcnn_r50_fpn_albu-1x_coco', 'rpn_r50_fpn_2x_coco', 'ddq-detr-5scale_r50_8xb2-12e_coco',
           'ddq-detr-4scale_swinl_8xb2-30e_coco', 'sort_faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_test-mot17halfval'},
    mmseg={'ddeeplabv3plus_r101-d16-mg124_4xb2-40k_cityscapes-512x1024', 'eemanet_r50-d8_4xb2-80k_cityscapes-512x1024',
           'fpn_poolformer_s36_8xb4-40k_ade20k-512x512'},
    mmpretrain=set())


@pytest.mark.parametrize('library', LIBRARIES)
def test_the_metafiles_are_understood(library):
    entries = list(zoo_entries(library))
    assert len(entries) > 500
    assert {entry.name for entry in entries if not osp.isfile(entry.config)} == WITHOUT_CONFIG[library]
    assert sum(str(entry.weights).startswith('http') for entry in entries) > 0.95 * len(entries)


@pytest.mark.parametrize('config, weights', [
    ('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth'),
    ('mmdet::dcn/cascade-mask-rcnn_x101-32x4d-dconv-c3-c5_fpn_1x_coco.py',
     'cascade_mask_rcnn_x101_32x4d_fpn_dconv_c3-c5_1x_coco-e75f90c8.pth'),
    ('mmdet::gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py',  # percent-encoded in the metafile
     'faster_rcnn_r50_fpn_gn_ws-all_1x_coco_20200130-613d9fe2.pth'),
    ('mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py',
     'pspnet_r18-d8_512x1024_80k_cityscapes_20201225_021458-09ffa746.pth'),
    ('mmpretrain::resnet/resnet18_8xb32_in1k.py', 'resnet18_8xb32_in1k_20210831-fbbb1da6.pth')])
def test_weights_of_a_config(config, weights):
    assert zoo_weights(stock_config(config)).endswith('/' + weights)


SHARED = 'mmpretrain::convnext/convnext-base_32xb128_in1k.py'


@pytest.mark.parametrize('name, weights', [
    ('', 'convnext-base_32xb128_in1k_20221207-fbdb5eb9.pth'),
    (SHARED, 'convnext-base_32xb128_in1k_20221207-fbdb5eb9.pth'),
    ('convnext-base_32xb128-noema_in1k', 'convnext-base_32xb128-noema_in1k_20221208-f8182678.pth'),
    ('mmpretrain::convnext-base_in21k-pre_3rdparty_in1k',
     'convnext-base_in21k-pre-3rdparty_32xb128_in1k_20220124-eb2d6ada.pth')])
def test_models_that_share_a_config_keep_their_own_weights(name, weights):
    assert zoo_weights(stock_config(SHARED), name).endswith('/' + weights)


def test_every_zoo_name_leads_to_its_own_weights():
    for library in LIBRARIES:
        entries = [entry for entry in zoo_entries(library) if isinstance(entry.weights, str)]
        once = Counter(entry.name for entry in entries)
        entries = [entry for entry in entries if once[entry.name] == 1 and osp.isfile(entry.config)]
        for entry in entries[::40]:
            assert zoo_weights(entry.config, entry.name) == entry.weights


def test_a_config_of_several_models_that_is_none_of_them():
    with pytest.raises(ValueError) as error:
        zoo_weights(stock_config('mmpretrain::convnext/convnext-base_32xb128_in1k-384px.py'))
    for word in ("several weights for 'convnext-base_32xb128_in1k-384px.py'",
                 "'convnext-base_3rdparty_in1k-384px' (http", "'convnext-base_in21k-pre-3rdparty_in1k-384px' (http",
                 "Give the name of one model as 'config'"):
        assert word in str(error.value), error.value


def test_configs_without_weights(tmp_path):
    with pytest.raises(ValueError, match="the zoo of mmdet has no weights for 'faster-rcnn_r50_fpn.py'"):
        zoo_weights(stock_config('mmdet::_base_/models/faster-rcnn_r50_fpn.py'))
    with pytest.raises(ValueError, match="'zoo' means .* is no config of an installed MM library; give a path"):
        zoo_weights(str(tmp_path / 'mine.py'))


def test_a_model_is_built_in_its_own_scope():
    model = dict(classifier())
    del model['_scope_']
    built = build_model(Config(dict(model=model, default_scope='mmpretrain')))
    assert {type(m).__module__.split('.')[0] for m in (built, built.backbone)} == {'mmpretrain'}
    assert '_scope_' not in model


def test_the_preprocessor_beside_the_model_is_its_own():
    model = dict(classifier())
    del model['data_preprocessor']
    own = dict(mean=[1., 2., 3.], std=[1., 1., 1.])
    for cfg, mean in ((dict(model=model, data_preprocessor=own), 2.), (dict(model=model), None)):
        other = build_model(Config(dict(model=classifier()))).data_preprocessor
        built = build_model(Config(cfg), data_preprocessor=other)
        assert built.data_preprocessor.mean[1].item() == (mean or other.mean[1].item())


@pytest.mark.parametrize('cfg', [dict(), dict(model=dict(depth=18)), dict(model='resnet')])
def test_a_config_without_a_model(cfg):
    with pytest.raises(ValueError, match="expected a model config with a 'type'"):
        build_model(Config(cfg))
