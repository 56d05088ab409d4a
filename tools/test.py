"""Tests a checkpoint with the student's own config; a distillation config is reduced to its student."""
from mmengine.evaluator import DumpResults
from torch.distributed.elastic.multiprocessing.errors import record

from mmfeatdistill.distill_config import is_distillation, student_config
from mmfeatdistill.engine.command_line import configure, run_arguments
from mmfeatdistill.zoo.configs import build_runner


@record  # under torchrun, the report of a job that fails ends with the error of the process that failed first
def main() -> None:
    """Parses the command line, builds the runner and tests."""
    parser = run_arguments(__doc__)
    parser.add_argument('checkpoint', help='the file to test')
    parser.add_argument('--out', metavar='FILE.pkl', help='also save the predictions')
    args = parser.parse_args()
    cfg = configure(args)
    if is_distillation(cfg):
        cfg = student_config(cfg)
    cfg.load_from = args.checkpoint
    runner = build_runner(cfg)
    if args.out:
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
    runner.test()


if __name__ == '__main__':
    main()
