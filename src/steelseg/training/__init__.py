"""Training one fold: loop, optimizers, schedulers."""
