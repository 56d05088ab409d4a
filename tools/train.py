"""Trains any MM model, distilled or not, of any task."""
from torch.distributed.elastic.multiprocessing.errors import record

from mmfeatdistill.engine.command_line import add_training_options, at_least, configure_training, run_arguments
from mmfeatdistill.engine.disk_faults import disk_faults_explained
from mmfeatdistill.engine.lost_processes import lost_processes_named
from mmfeatdistill.zoo.configs import build_runner


@record  # under torchrun, the report of a job that fails ends with the error of the process that failed first
def main() -> None:
    """Parses the command line, builds the runner and trains."""
    parser = run_arguments(__doc__)
    add_training_options(parser)
    parser.add_argument('--check-teacher', nargs='?', type=at_least(10), const=200, metavar='IMAGES',
                        help='first evaluate the teacher on so many validation images (default: 200), and do not start '
                             'with one at chance level')
    cfg = configure_training(parser.parse_args())
    with disk_faults_explained(cfg.work_dir):
        runner = build_runner(cfg)
        with lost_processes_named():
            runner.train()


if __name__ == '__main__':
    main()
