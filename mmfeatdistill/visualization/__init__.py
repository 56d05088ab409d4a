"""Pictures of what a distillation does: curves, feature maps, predictions."""
from mmfeatdistill.visualization.comparison_figure import comparison_figure
from mmfeatdistill.visualization.figures import image_grid, training_curves
from mmfeatdistill.visualization.snapshots import save_snapshots

__all__ = ['comparison_figure', 'image_grid', 'save_snapshots', 'training_curves']
