# Licensed under the Apache License, Version 2.0.
"""Write which classes each image of COCO shows, as mmpretrain's MultiLabelDataset reads it.

``annotations/instances_<split>.json`` becomes ``annotations/multi_label_<split>.json`` next to it. Images without any
object are left out, and crowds count as objects.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from mmfeatdistill.atomic_files import atomic_write


def labels_of_images(instances: dict[str, Any]) -> dict[str, Any]:
    """Turn boxes into sets of classes.

    Args:
        instances: An annotation file of COCO's detection task.

    Returns:
        Classes in the order of their ids under ``metainfo``, and under ``data_list`` the file name and the class
        indices of each image.
    """
    categories = sorted(instances['categories'], key=lambda category: category['id'])
    index = {category['id']: number for number, category in enumerate(categories)}
    shown: dict[int, set[int]] = defaultdict(set)
    for annotation in instances['annotations']:
        shown[annotation['image_id']].add(index[annotation['category_id']])
    return dict(
        metainfo=dict(classes=[category['name'] for category in categories]),
        data_list=[
            dict(img_path=image['file_name'], gt_label=sorted(shown[image['id']]))
            for image in instances['images'] if image['id'] in shown])


def main(arguments: list[str] | None = None) -> None:
    """Run the converter from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('root', type=Path, help='folder of COCO, such as data/coco')
    parser.add_argument('--splits', nargs='+', default=['train2014', 'val2014'],
                        help='default: those of 2014, on which multi-label classifiers are compared')
    args = parser.parse_args(arguments)
    folder = args.root / 'annotations'
    for split in args.splits:
        source, target = folder / f'instances_{split}.json', folder / f'multi_label_{split}.json'
        try:
            converted = labels_of_images(json.loads(source.read_text()))
        except OSError as error:
            parser.exit(1, f'{parser.prog}: error: {error}\n')
        except (ValueError, KeyError, TypeError) as error:
            parser.exit(1, f"{parser.prog}: error: {source} is no annotation file of COCO's detection task, with "
                           f'categories, images and annotations that name them: {error!r}\n')
        atomic_write(target, json.dumps(converted))
        print(f'{target}: {len(converted["data_list"])} images, {len(converted["metainfo"]["classes"])} classes')


if __name__ == '__main__':
    main()
