"""What training has in common, whatever is learned: tables, checkpoints, exact resume."""
