"""Memory of a training run: predicted beforehand, fitted to a card, explained after a death."""
