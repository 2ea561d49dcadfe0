"""Training of MGM: data order, loss, optimizers, checkpoints, and the loop over them."""
