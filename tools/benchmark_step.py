"""Times a distilled training step against the sum of its parts, on one batch of the config's own data."""
import argparse
import json
import logging

import torch
from mmengine.config import DictAction
from mmengine.logging import MMLogger
from rich.console import Console
from rich.table import Table

from mmfeatdistill.engine.step_benchmark import PARTS, measure_step
from mmfeatdistill.files import write_whole
from mmfeatdistill.zoo import load_config

LABELS = dict(student='student step alone', teacher='teacher to its last tap',
              objectives='connectors and losses', distilled='distilled step')


def main() -> None:
    """Parses the command line, measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a distillation config')
    parser.add_argument('--rounds', type=int, default=20, help='rounds that count (default: 20)')
    parser.add_argument('--warmup', type=int, default=3, help='rounds before them (default: 3)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='override settings, such as model.teacher.checkpoint=None')
    parser.add_argument('--json', metavar='FILE', help='also write the figures to a file')
    args = parser.parse_args()
    MMLogger.get_instance('benchmark_step', log_level=logging.ERROR)
    cfg = load_config(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    costs = measure_step(cfg, args.rounds, args.warmup, args.device)
    table = Table('part', 'median time (ms)', 'peak memory added (MiB)')
    for part in PARTS:
        table.add_row(LABELS[part], f'{1000 * costs.seconds[part]:.1f}', f'{costs.peak_mib[part]:.1f}')
    Console().print(table)
    print(f'distilled step / sum of the three parts: {costs.ratio:.3f} (median of {args.rounds} rounds, {args.device}, '
          f'torch {torch.__version__}, {torch.get_num_threads()} threads)')
    if args.json:
        write_whole(args.json, json.dumps(costs._asdict(), indent=2))


if __name__ == '__main__':
    main()
