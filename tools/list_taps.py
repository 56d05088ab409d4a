"""Lists every place of a model that can be tapped, with the shape and stride of what it gives."""
import argparse
import logging
import sys

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mmfeatdistill.distill_config import is_distillation, student_config, teacher_options
from mmfeatdistill.engine.command_line import at_least, load_with_options
from mmfeatdistill.errors import config_key, did_you_mean
from mmfeatdistill.taps.dry_run import probe_all
from mmfeatdistill.zoo.configs import build_model, load_config


def main() -> None:
    """Parses the command line, runs the model once and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help="a config file, 'mmdet::...', or the name of a zoo model; of a "
                                       'distillation config the student is listed')
    parser.add_argument('--size', type=at_least(1), default=256, help='side of the input image (default: 256)')
    parser.add_argument('--under', default='', help="only places whose name starts so, such as 'neck'")
    parser.add_argument('--depth', type=at_least(1), help="only names of at most so many parts ('neck' has one)")
    parser.add_argument('--teacher', action='store_true', help='of a distillation config the first teacher instead')
    args = parser.parse_args()
    MMLogger.get_instance('list_taps', log_level=logging.ERROR)
    cfg = load_with_options(args.config, None)
    if args.teacher:
        if not is_distillation(cfg):
            parser.error(f'--teacher: {args.config} is no distillation config')
        teacher = next(iter(teacher_options(cfg.model.teacher).values()))
        cfg = load_config(teacher['config']) if 'config' in teacher else Config(dict(model=teacher['model']))
    elif is_distillation(cfg):
        cfg = student_config(cfg)
    with config_key('model'):
        model = build_model(cfg)
    names = [name for name, _ in model.named_modules() if name]
    if not any(name.startswith(args.under) for name in names):
        parser.error(f'--under: no place begins so{did_you_mean(args.under, names)}')
    table = Table('tap', 'module', 'output (for one image)', 'stride', 'calls')
    found, failure = probe_all(model, args.size)
    for path, (tensors, calls) in found.items():
        if path.startswith(args.under) and (args.depth is None or path.count('.') < args.depth):
            table.add_row(path, type(model.get_submodule(path)).__name__,
                          '  '.join('x'.join(map(str, t.shape)) for t in tensors),
                          '  '.join(_stride(t, args.size) for t in tensors), str(calls))
    Console(width=None if Console().is_terminal else 200).print(table)
    if failure is not None:
        print(f'This is not all: the model failed on an image of {args.size} x {args.size} pixels '
              f'({type(failure).__name__}: {failure}). It may take another --size.', file=sys.stderr)


def _stride(tensor: Tensor, size: int) -> str:
    """How many input pixels a position of a map covers; '-' for what is no map."""
    if tensor.dim() != 4 or 0 in tensor.shape or tensor.shape[-1] > size:
        return '-'
    return f'{size / tensor.shape[-1]:g}'


if __name__ == '__main__':
    with torch.no_grad():
        main()
