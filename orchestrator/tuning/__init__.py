"""Learning rates searched with Ray Tune and Optuna before the trainings that use them."""
