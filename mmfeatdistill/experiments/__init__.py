"""Many trainings: grids, generations, reports and figures."""
