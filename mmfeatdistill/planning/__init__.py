"""From the names of a student and a teacher to a distillation config: what an expert would look at, and decide."""
