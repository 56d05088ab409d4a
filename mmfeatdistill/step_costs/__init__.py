"""What a distilled training step costs."""
