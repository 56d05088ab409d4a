"""Pictures of what a distillation does and costs: curves, feature maps, predictions, comparisons, steps."""
from mmfeatdistill.visualization.comparison_figure import comparison_figure
from mmfeatdistill.visualization.figures import image_grid, training_curves
from mmfeatdistill.visualization.snapshots import save_snapshots
from mmfeatdistill.visualization.step_figure import step_figure

__all__ = ['comparison_figure', 'image_grid', 'save_snapshots', 'step_figure', 'training_curves']
