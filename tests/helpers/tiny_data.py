"""A few pictures each of ImageNet, CIFAR-100, COCO, Pascal VOC and Cityscapes, in the real formats and folders."""
import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 192, 128
TRAIN, VAL = 8, 4


class Scene:
    """An image with rectangles of some classes: ``boxes`` as x1, y1, x2, y2."""

    def __init__(self, seed: int, classes: int) -> None:
        rng = np.random.default_rng(seed)
        self.image = rng.integers(0, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        self.labels = rng.choice(classes, 3, replace=False)
        corners = rng.integers((0, 0), (WIDTH - 70, HEIGHT - 60), (3, 2))
        self.boxes = np.concatenate([corners, corners + rng.integers(40, 60, (3, 2))], axis=1)
        for label, (x1, y1, x2, y2) in zip(self.labels, self.boxes):
            self.image[y1:y2, x1:x2] = np.array([53, 101, 211]) * (label + 1) % 256

    def label_map(self, background: int, first: int = 0) -> np.ndarray:
        """The class of each pixel."""
        labels = np.full((HEIGHT, WIDTH), background, np.uint8)
        for label, (x1, y1, x2, y2) in zip(self.labels, self.boxes):
            labels[y1:y2, x1:x2] = label + first
        return labels


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_coco(folder: Path, classes: Sequence[str]) -> None:
    """``train2017``, ``val2017`` and ``annotations/instances_*.json``; category ids with gaps, as COCO's."""
    ids = [number + number // 11 + 1 for number in range(len(classes))]
    for split, first, count in (('train2017', 0, TRAIN), ('val2017', 100, VAL)):
        images, annotations = [], []
        for number in range(first, first + count):
            scene = Scene(number, len(classes))
            name = f'{number:012d}.jpg'
            _write(folder / split / name, scene.image)
            images.append(dict(id=number, file_name=name, width=WIDTH, height=HEIGHT))
            for label, (x1, y1, x2, y2) in zip(scene.labels.tolist(), scene.boxes.tolist()):
                annotations.append(dict(
                    id=len(annotations) + 1, image_id=number, category_id=ids[label], iscrowd=0,
                    bbox=[x1, y1, x2 - x1, y2 - y1], area=(x2 - x1) * (y2 - y1),
                    segmentation=[[x1, y1, x2, y1, x2, y2, x1, y2]]))
        categories = [dict(id=number, name=name) for number, name in zip(ids, classes)]
        _write_text(folder / 'annotations' / f'instances_{split}.json',
                    json.dumps(dict(images=images, annotations=annotations, categories=categories)))


def make_voc(folder: Path, classes: Sequence[str]) -> None:
    """``VOC2007`` and ``VOC2012`` with boxes in XML, label maps, and the augmented training set of 2012."""
    for year in ('VOC2007', 'VOC2012'):
        splits = dict(trainval=range(TRAIN), test=range(100, 100 + VAL))
        splits |= dict(train=splits['trainval'], val=splits['test'], aug=splits['trainval'])
        for number in (*splits['trainval'], *splits['test']):
            scene, name = Scene(number, len(classes)), f'{number:06d}'
            _write(folder / year / 'JPEGImages' / f'{name}.jpg', scene.image)
            objects = ''.join(
                f'<object><name>{classes[label]}</name><difficult>0</difficult><bndbox><xmin>{x1 + 1}</xmin>'
                f'<ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>'
                for label, (x1, y1, x2, y2) in zip(scene.labels, scene.boxes))
            _write_text(folder / year / 'Annotations' / f'{name}.xml',
                        f'<annotation><filename>{name}.jpg</filename><size><width>{WIDTH}</width><height>{HEIGHT}'
                        f'</height><depth>3</depth></size>{objects}</annotation>')
            for kind in ('SegmentationClass', 'SegmentationClassAug'):
                _write(folder / year / kind / f'{name}.png', scene.label_map(background=0, first=1))
        for split, numbers in splits.items():
            listed = ''.join(f'{number:06d}\n' for number in numbers)
            for kind in ('Main', 'Segmentation'):
                _write_text(folder / year / 'ImageSets' / kind / f'{split}.txt', listed)


def make_cityscapes(folder: Path, classes: Sequence[str]) -> None:
    """``leftImg8bit`` and ``gtFine`` with ``labelTrainIds``; 255 is what counts for nothing."""
    for split, first, count in (('train', 0, TRAIN), ('val', 100, VAL)):
        for number in range(first, first + count):
            scene, name = Scene(number, len(classes)), f'aachen_{number:06d}_000019'
            _write(folder / 'leftImg8bit' / split / 'aachen' / f'{name}_leftImg8bit.png', scene.image)
            _write(folder / 'gtFine' / split / 'aachen' / f'{name}_gtFine_labelTrainIds.png',
                   scene.label_map(background=255 if number % 2 else 0))


def make_imagenet(folder: Path, classes: int = 1000) -> None:
    """``train`` with a folder for each of 1000 classes; ``val`` flat, with its labels in ``meta/val.txt``."""
    noise = cv2.imencode('.jpg', np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))[1].tobytes()
    for label in range(classes):
        path = folder / 'train' / f'n{label:08d}' / f'n{label:08d}_1.JPEG'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise)
    names = [f'ILSVRC2012_val_{number:08d}.JPEG' for number in range(VAL)]
    for number, name in enumerate(names):
        _write(folder / 'val' / name, Scene(number, 20).image)
    _write_text(folder / 'meta' / 'val.txt', ''.join(f'{name} {7 * label}\n' for label, name in enumerate(names)))


def make_cifar100(folder: Path) -> None:
    """``cifar-100-python``: the pickles ``train``, ``test`` and ``meta``."""
    folder = folder / 'cifar-100-python'
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for split, count in (('train', 4 * TRAIN), ('test', VAL)):
        content = dict(data=rng.integers(0, 256, (count, 3072), dtype=np.uint8),
                       fine_labels=rng.integers(0, 100, count).tolist())
        (folder / split).write_bytes(pickle.dumps(content))
    (folder / 'meta').write_bytes(pickle.dumps(dict(fine_label_names=[str(label) for label in range(100)])))
