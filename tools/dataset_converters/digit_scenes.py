# Licensed under the Apache License, Version 2.0.
"""Compose small scenes of handwritten digits and write them in real data set formats.

Needs no download: the digits and the photographs under them come with scikit-learn. Digits are
enlarged, rotated, colored and partly hidden; training and test scenes share neither a digit nor
a region of a photograph. Equal arguments give equal files.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from sklearn.datasets import load_digits, load_sample_images
from tqdm import tqdm

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]

FORMAT_VERSION = 1
DIGITS = tuple(str(digit) for digit in range(10))
SPLITS = ('train', 'val')
# Of the originals of each split; the rest of the digits is the other split's.
TRAIN_SHARE = 0.65
# A digit of which less than this is seen would be a wrong label rather than a hard one.
MIN_VISIBLE = 0.6
PLACEMENTS_TRIED = 20
# Dim photographs under bright digits: a small network finds them within minutes of training.
PHOTOGRAPH_BRIGHTNESS = 0.5


@dataclass(frozen=True)
class Layout:
    """What the scenes of one task look like; the ranges include both ends."""

    canvas: int
    digits: tuple[int, int]
    digit_sizes: tuple[int, int]
    occluders: tuple[int, int]
    occluder_sizes: tuple[int, int]
    scenes: tuple[int, int]  # in training and in test


LAYOUTS = {
    'classification': Layout(64, (1, 1), (36, 60), (1, 2), (10, 22), (3000, 500)),
    'detection': Layout(96, (1, 3), (32, 60), (1, 3), (10, 22), (1000, 300)),
    'segmentation': Layout(96, (1, 2), (52, 84), (1, 3), (12, 26), (1000, 300)),
}


@dataclass(frozen=True)
class Sources:
    """The originals from which the scenes of one split are composed.

    Attributes:
        digits: Strokes of shape (N, 8, 8) in [0, 1].
        labels: The digit's class, shape (N,).
        photographs: Images of shape (H, W, 3) in [0, 255], channels in OpenCV's order.
    """

    digits: Floats
    labels: NDArray[np.int64]
    photographs: list[Floats]


@dataclass(frozen=True)
class Instance:
    """One digit of a scene: its class and which pixels of it are seen, shape (H, W)."""

    label: int
    mask: Bools


@dataclass(frozen=True)
class Scene:
    """A composed image of shape (H, W, 3) and its digits, the foremost first."""

    image: Bytes
    instances: list[Instance]


# --- composition: pure functions of the originals and a random generator ---------------------


def load_sources() -> dict[str, Sources]:
    """Share the bundled originals between training and test, with none in both."""
    digits, labels = load_digits(return_X_y=True)
    strokes = (digits / 16.0).reshape(-1, 8, 8).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(labels))
    parts = np.split(order, [int(TRAIN_SHARE * len(order))])
    photographs = [image[..., ::-1].astype(np.float32) for image in load_sample_images().images]
    halves = [np.array_split(image, 2, axis=1) for image in photographs]
    return {
        split: Sources(strokes[part], labels[part].astype(np.int64), [half[i] for half in halves])
        for i, (split, part) in enumerate(zip(SPLITS, parts, strict=True))
    }


def crop_photograph(photographs: list[Floats], size: int, rng: np.random.Generator) -> Floats:
    """Cut a square of random extent out of a photograph and dim it, as (size, size, 3)."""
    photograph = photographs[rng.integers(len(photographs))]
    limit = min(photograph.shape[:2])
    extent = int(rng.integers(min(size, limit), min(2 * size, limit), endpoint=True))
    top, left = (int(rng.integers(side - extent + 1)) for side in photograph.shape[:2])
    crop = photograph[top : top + extent, left : left + extent]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    resized = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
    return (PHOTOGRAPH_BRIGHTNESS * resized).astype(np.float32)


def shape_digit(strokes: Floats, size: int, angle: float) -> Floats:
    """Enlarge and rotate a digit to an opacity of shape (size, size) in [0, 1]."""
    # The margin of one pixel keeps strokes that touch the edge round and complete when rotated.
    padded = np.pad(strokes, 1)
    enlarged = cv2.resize(padded, (size, size), interpolation=cv2.INTER_CUBIC)
    center = (size - 1) / 2
    rotation = cv2.getRotationMatrix2D((center, center), angle, 1.0)
    rotated = cv2.warpAffine(enlarged, rotation, (size, size))
    # A steep ramp turns the blurred enlargement into a stroke with a thin soft edge.
    return np.clip((rotated - 0.35) * 6, 0, 1).astype(np.float32)


def shape_occluder(size: int, rng: np.random.Generator) -> Floats:
    """Draw a filled ellipse or a tilted bar as an opacity of shape (size, size)."""
    shape = np.zeros((size, size), np.uint8)
    middle = (size / 2, size / 2)
    axes = (size * rng.uniform(0.6, 1.0), size * rng.uniform(0.4, 1.0))
    tilted = (middle, axes, rng.uniform(0, 180))
    if rng.random() < 0.5:
        cv2.ellipse(shape, tilted, 1, -1)
    else:
        cv2.fillConvexPoly(shape, cv2.boxPoints(tilted).astype(np.int32), 1)
    return shape.astype(np.float32)


def place(shape: Floats, canvas: int, rng: np.random.Generator) -> Floats:
    """Put a shape at a random place that holds all of it, as (canvas, canvas)."""
    height, width = shape.shape
    top, left = rng.integers(canvas - height + 1), rng.integers(canvas - width + 1)
    placed = np.zeros((canvas, canvas), np.float32)
    placed[top : top + height, left : left + width] = shape
    return placed


def choose_color(background: Floats, rng: np.random.Generator) -> Floats:
    """Draw the bright color, of a few random ones, that differs most from what lies under it."""
    candidates = rng.uniform(0, 1, (3, 3)).astype(np.float32)
    candidates *= 255 / candidates.max(axis=1, keepdims=True)
    contrast = np.abs(candidates - background.mean(axis=0)).sum(axis=1)
    chosen: Floats = candidates[contrast.argmax()]
    return chosen


def compose_scene(sources: Sources, layout: Layout, rng: np.random.Generator) -> Scene:
    """Compose one scene from front to back: occluders, digits, photograph.

    Each layer shows only through what the layers before it left uncovered, so a digit's visible
    part is known when it is placed, and one that would be mostly hidden is placed elsewhere or,
    after a few attempts, left out of the image as well as of the instances. A scene left without
    any digit is composed anew.
    """
    canvas = layout.canvas
    background = crop_photograph(sources.photographs, canvas, rng)
    image = np.zeros_like(background)
    uncovered = np.ones((canvas, canvas), np.float32)
    instances = []

    for _ in range(rng.integers(*layout.occluders, endpoint=True)):
        size = int(rng.integers(*layout.occluder_sizes, endpoint=True))
        visible = place(shape_occluder(size, rng), canvas, rng) * uncovered
        image += visible[..., None] * crop_photograph(sources.photographs, canvas, rng)
        uncovered -= visible

    for _ in range(rng.integers(*layout.digits, endpoint=True)):
        index = rng.integers(len(sources.labels))
        size = int(rng.integers(*layout.digit_sizes, endpoint=True))
        shape = shape_digit(sources.digits[index], size, rng.uniform(-25, 25))
        for _ in range(PLACEMENTS_TRIED):
            visible = place(shape, canvas, rng) * uncovered
            if visible.sum() >= MIN_VISIBLE * shape.sum():
                mask = visible > 0.5
                color = choose_color(background[mask], rng)
                image += visible[..., None] * color
                uncovered = uncovered - visible
                instances.append(Instance(int(sources.labels[index]), mask))
                break

    if not instances:
        return compose_scene(sources, layout, rng)
    image += uncovered[..., None] * background
    image += rng.normal(0, 8, image.shape).astype(np.float32)
    return Scene(np.clip(image, 0, 255).astype(np.uint8), instances)


def compose_scenes(
    task: str, split: str, sources: Sources, seed: int
) -> Iterator[tuple[str, Scene]]:
    """Yield the named scenes of one split of one task, with a progress bar."""
    layout = LAYOUTS[task]
    count = layout.scenes[SPLITS.index(split)]
    for i in tqdm(range(count), desc=f'{task} {split}', unit='scene'):
        # A generator of its own per scene: the number of scenes changes none of them.
        rng = np.random.default_rng([seed, list(LAYOUTS).index(task), SPLITS.index(split), i])
        yield f'{i:05d}', compose_scene(sources, layout, rng)


# --- writers: one for each format ------------------------------------------------------------


def write_image(path: Path, image: Bytes) -> None:
    """Write an image without loss, making its folder.

    Raises:
        OSError: If the file cannot be written (OpenCV only returns False).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise OSError(f'cannot write {path}')


def write_class_folders(folder: Path, split: str, scenes: Iterator[tuple[str, Scene]]) -> None:
    """Write `<split>/<digit>/<name>.png`, as mmpretrain's CustomDataset reads it."""
    for digit in DIGITS:  # the dataset numbers the folders that it finds, so none may be missing
        (folder / split / digit).mkdir(parents=True)
    for name, scene in scenes:
        (instance,) = scene.instances
        write_image(folder / split / DIGITS[instance.label] / f'{name}.png', scene.image)


def write_coco(folder: Path, split: str, scenes: Iterator[tuple[str, Scene]]) -> None:
    """Write `<split>/<name>.png` and `annotations/<split>.json` with boxes and masks."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (name, scene) in enumerate(scenes):
        file_name = f'{name}.png'
        write_image(folder / split / file_name, scene.image)
        height, width = scene.image.shape[:2]
        images.append(dict(id=image_id, file_name=file_name, height=height, width=width))
        for instance in scene.instances:
            # COCO's run lengths go down the columns.
            runs = coco_mask.encode(np.asfortranarray(instance.mask, np.uint8))
            annotations.append(
                dict(
                    id=len(annotations) + 1,  # COCO's evaluation takes 0 for "no match"
                    image_id=image_id,
                    category_id=instance.label,
                    bbox=coco_mask.toBbox(runs).tolist(),
                    area=int(coco_mask.area(runs)),
                    segmentation=dict(size=runs['size'], counts=runs['counts'].decode()),
                    iscrowd=0,
                )
            )
    categories = [dict(id=i, name=name) for i, name in enumerate(DIGITS)]
    path = folder / 'annotations' / f'{split}.json'
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))


def write_cityscapes(folder: Path, split: str, scenes: Iterator[tuple[str, Scene]]) -> None:
    """Write Cityscapes' folders: train id 0 is the background, d + 1 is the digit d."""
    for name, scene in scenes:
        labels = np.zeros(scene.image.shape[:2], np.uint8)
        for instance in scene.instances:
            labels[instance.mask] = instance.label + 1
        stem = f'digits_{name}_000000'
        write_image(folder / f'leftImg8bit/{split}/digits/{stem}_leftImg8bit.png', scene.image)
        write_image(folder / f'gtFine/{split}/digits/{stem}_gtFine_labelTrainIds.png', labels)


WRITERS: dict[str, Callable[[Path, str, Iterator[tuple[str, Scene]]], None]] = {
    'classification': write_class_folders,
    'detection': write_coco,
    'segmentation': write_cityscapes,
}


def convert(task: str, out_dir: Path, seed: int) -> bool:
    """Write the scenes of one task to `out_dir/task`, all of them or nothing.

    Args:
        task: A key of `LAYOUTS`.
        out_dir: The folder that holds the tasks' folders; it is made when missing.
        seed: Seed of the scenes.

    Returns:
        Whether anything was written: a complete folder of the same arguments is kept.

    Raises:
        FileExistsError: If the folder holds anything else.
    """
    target = out_dir / task
    arguments = dict(version=FORMAT_VERSION, task=task, seed=seed, layout=asdict(LAYOUTS[task]))
    record = json.dumps(arguments, indent=2) + '\n'
    if target.exists():
        written = target / 'arguments.json'
        if written.is_file() and written.read_text() == record:
            return False
        raise FileExistsError(f'{target} holds other data: remove it or choose another folder')

    sources = load_sources()
    out_dir.mkdir(parents=True, exist_ok=True)
    # A temporary neighbor is on the same file system, so the final rename is atomic.
    partial = Path(tempfile.mkdtemp(prefix=f'.{task}-', dir=out_dir))
    try:
        for split in SPLITS:
            WRITERS[task](partial, split, compose_scenes(task, split, sources[split], seed))
        (partial / 'arguments.json').write_text(record)
        partial.chmod(0o755)  # mkdtemp leaves it closed to other users
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return True


def main(arguments: list[str] | None = None) -> None:
    """Run the converter from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out_dir', type=Path, help='folder to write one folder per task to')
    parser.add_argument('--task', choices=[*LAYOUTS, 'all'], default='all')
    parser.add_argument('--seed', type=int, default=0, help='a number from 0 up')
    args = parser.parse_args(arguments)
    if args.seed < 0:
        parser.error(f'--seed must be 0 or more, not {args.seed}')
    if args.out_dir.exists() and not args.out_dir.is_dir():
        parser.error(f'{args.out_dir} is not a folder')
    for task in LAYOUTS if args.task == 'all' else [args.task]:
        try:
            written = convert(task, args.out_dir, args.seed)
        except OSError as error:
            parser.exit(1, f'{parser.prog}: error: {error}\n')
        print(f'{args.out_dir / task}: {"written" if written else "already complete"}')


if __name__ == '__main__':
    main()
