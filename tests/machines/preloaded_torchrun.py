"""torchrun that has imported the libraries: with ``--run-path --start-method=fork`` a restart costs no import."""
import mmpretrain  # noqa: F401
from torch.distributed.run import main

from mmfeatdistill import distillers  # noqa: F401
from mmfeatdistill.engine import command_line  # noqa: F401

if __name__ == '__main__':
    main()
